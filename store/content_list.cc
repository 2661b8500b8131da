#include "store/content_list.h"

#include <utility>

namespace mirage {
namespace {

// Holes never cut: in a sparse file each second segment is one.
bool EndsNode(const Segment& segment) { return segment.id.bytes.back() == 0 && !segment.id.IsZero(); }

}  // namespace

Status ContentListBuilder::Add(const Segment& segment) {
  if (last_.length != 0 && last_.id.IsZero() && segment.id.IsZero()) {
    last_.length += segment.length;
    return {};
  }
  const Segment before = std::exchange(last_, segment);
  if (before.length == 0) return {};
  return AddTo(0, before);
}

Status ContentListBuilder::AddTo(size_t level, const Segment& segment) {
  if (levels_.size() == level) levels_.emplace_back();
  if (!levels_[level].cut && levels_[level].pending.size() == kUncutListSegments) {
    // The level is long after all: cut what was held back.
    levels_[level].cut = true;
    for (size_t i = 0; i + 1 < levels_[level].pending.size();) {
      if (EndsNode(levels_[level].pending[i])) {
        TRY(CutPending(level, i + 1));
        i = 0;
      } else {
        ++i;
      }
    }
  }
  // A node is cut when its next segment comes, so that what is left at the end is never empty.
  if (levels_[level].cut &&
      (EndsNode(levels_[level].pending.back()) || levels_[level].pending.size() == kMaxListNodeSegments)) {
    TRY(CutPending(level, levels_[level].pending.size()));
  }
  levels_[level].pending.push_back(segment);
  return {};
}

// Writes the first `count` pending segments as a node and names it in the level above.
Status ContentListBuilder::CutPending(size_t level, size_t count) {
  std::vector<Segment>& pending = levels_[level].pending;
  const auto end = pending.begin() + static_cast<ptrdiff_t>(count);
  ContentNode node{.level = static_cast<uint8_t>(level), .segments = {pending.begin(), end}};
  pending.erase(pending.begin(), end);
  ASSIGN_OR_RETURN(const ObjectId id, objects_.WriteObject(ObjectKind::kContentNode, EncodeContentNode(node)));
  return AddTo(level + 1, {.length = node.TotalBytes(), .id = id});
}

Status ContentListBuilder::Finish(const ObjectId& content) {
  if (last_.length != 0) {
    const bool single_chunk = levels_.empty() && !last_.id.IsZero();
    if (!single_chunk) {
      TRY(AddTo(0, last_));
      size_t level = 0;
      for (; level + 1 < levels_.size(); ++level) TRY(CutPending(level, levels_[level].pending.size()));
      const ContentNode root{.level = static_cast<uint8_t>(level), .segments = std::move(levels_[level].pending)};
      TRY(objects_.WriteContentList(content, EncodeContentNode(root)));
    }
  }
  Clear();
  return {};
}

void ContentListBuilder::Clear() {
  levels_.clear();
  last_ = {};
}

}  // namespace mirage
