#include "store/reachable.h"

#include <vector>

#include "store/fsck.h"
#include "store/map_node.h"

namespace mirage {

struct ReachableMarks::Impl {
  Impl(Env& e, std::string s, Read r, HasChunk h)
      : env(e),
        scratch(std::move(s)),
        read(std::move(r)),
        has_chunk(std::move(h)),
        marks(env, Make("marks"), kFsckRunsBytes) {}
  Env& env;
  const std::string scratch;
  Read read;
  HasChunk has_chunk;
  SortedRuns marks;
  int tries = 0;

  std::string Make(const std::string& name) const {
    const std::string path = scratch + "/" + name;
    static_cast<void>(env.MakeDirectory(path, 0700));  // what does not exist fails when it is written to
    return path;
  }
  using Due = std::vector<std::pair<ObjectKind, ObjectId>>;
  // Marks what hangs on `due` in `into`, passing over what `marks` has. False: something is lost; with `stop` the walk
  // ends there.
  Result<bool> Walk(Due due, SortedRuns* into, bool stop);
  // Puts what an object names on `due`. False: it does not decode.
  Result<bool> Follow(ObjectKind kind, std::string bytes, Due* due, SortedRuns* into, bool* whole) const;
  static void FollowEntry(const Entry& entry, Due* due);
};

void ReachableMarks::Impl::FollowEntry(const Entry& entry, Due* due) {
  if (!entry.xattrs.IsZero()) due->emplace_back(ObjectKind::kXattrs, entry.xattrs);
  if (entry.is_directory()) {
    due->emplace_back(ObjectKind::kTree, entry.id);
  } else if (!entry.id.IsZero() && entry.size > 0) {
    due->emplace_back(ObjectKind::kContent, entry.id);
  }
}

Result<bool> ReachableMarks::Impl::Follow(ObjectKind kind, std::string bytes, Due* due, SortedRuns* into,
                                          bool* whole) const {
  switch (kind) {
    case ObjectKind::kManifest: {
      const auto manifest = DecodeManifest(bytes);
      if (!manifest) return false;
      FollowEntry(manifest->root, due);
      if (!manifest->links.IsZero()) due->emplace_back(ObjectKind::kLinks, manifest->links);
      if (!manifest->inspection.IsZero()) due->emplace_back(ObjectKind::kInspection, manifest->inspection);
      return true;
    }
    case ObjectKind::kTree:
    case ObjectKind::kLinks: {
      const auto node = MapNode::Decode(kind, std::move(bytes));
      if (!node) return false;
      for (size_t i = 0; i < (*node)->size(); ++i) {
        if ((*node)->level() > 0) {
          due->emplace_back(kind, (*node)->child(i));
        } else if (kind == ObjectKind::kTree) {
          const auto entry = DecodeEntry((*node)->value(i));
          if (!entry) return false;
          FollowEntry(*entry, due);
        }
      }
      return true;
    }
    case ObjectKind::kContent:
    case ObjectKind::kContentNode: {
      const auto node = DecodeContentNode(bytes);
      if (!node) return false;
      for (const Segment& segment : node->segments) {
        if (node->level > 0) {
          due->emplace_back(ObjectKind::kContentNode, segment.id);
        } else if (!segment.id.IsZero()) {
          ASSIGN_OR_RETURN(const bool has, has_chunk(segment.id));
          *whole &= has;
          TRY(into->Put(ObjectKind::kChunk, segment.id, "-"));
        }
      }
      return true;
    }
    default:
      return true;
  }
}

Result<bool> ReachableMarks::Impl::Walk(Due due, SortedRuns* into, bool stop) {
  bool whole = true;
  while (!due.empty() && (whole || !stop)) {
    const auto [kind, id] = due.back();
    due.pop_back();
    ASSIGN_OR_RETURN(auto before, marks.Get(kind, id));
    if (!before && into != &marks) {
      ASSIGN_OR_RETURN(before, into->Get(kind, id));
    }
    if (before) continue;
    TRY(into->Put(kind, id, "-"));
    ASSIGN_OR_RETURN(auto bytes, read(kind, id));
    if (bytes) {
      ASSIGN_OR_RETURN(const bool decoded, Follow(kind, std::move(*bytes), &due, into, &whole));
      whole &= decoded;
    } else if (kind == ObjectKind::kContent) {  // no list: it is one chunk
      ASSIGN_OR_RETURN(const bool has, has_chunk(id));
      whole &= has;
      TRY(into->Put(ObjectKind::kChunk, id, "-"));
    } else {
      whole = false;
    }
  }
  return whole;
}

ReachableMarks::ReachableMarks(Env& env, const std::string& scratch, Read read, HasChunk has_chunk)
    : impl_(std::make_unique<Impl>(env, scratch, std::move(read), std::move(has_chunk))) {}
ReachableMarks::~ReachableMarks() = default;

Status ReachableMarks::Mark(const ObjectId& manifest) {
  ASSIGN_OR_RETURN([[maybe_unused]] const bool whole,
                   impl_->Walk({{ObjectKind::kManifest, manifest}}, &impl_->marks, /*stop=*/false));
  return {};
}

Result<bool> ReachableMarks::IsWhole(const ObjectId& manifest) {
  SortedRuns tried(impl_->env, impl_->Make(fmt::format("tried-{}", impl_->tries++)), kFsckRunsBytes);
  return impl_->Walk({{ObjectKind::kManifest, manifest}}, &tried, /*stop=*/true);
}

Status ReachableMarks::MarkManifest(const ObjectId& manifest) {
  return impl_->marks.Put(ObjectKind::kManifest, manifest, "-");
}

Result<bool> ReachableMarks::Contains(ObjectKind kind, const ObjectId& id) const {
  ASSIGN_OR_RETURN(const auto found, impl_->marks.Get(kind, id));
  return found.has_value();
}

Result<bool> IsWhole(const Library& library, const Snapshot& snapshot, const ObjectId& manifest,
                     const std::string& scratch) {
  ReachableMarks marks(
      library.env(), scratch,
      [&](ObjectKind kind, const ObjectId& id) { return snapshot.database().Get(kind, id); },
      [&](const ObjectId& id) -> Result<bool> {
        ASSIGN_OR_RETURN(const auto location, snapshot.FindChunk(id));
        return location.has_value();
      });
  return marks.IsWhole(manifest);
}

}  // namespace mirage
