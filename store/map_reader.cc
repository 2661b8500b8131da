// MapReader: the cache, lookups, scans and the difference of two maps. Declared in store/map_node.h.
#include "store/map_limits.h"
#include "store/map_node.h"
#include "store/sharded_cache.h"

namespace mirage {
namespace {

using NodePointer = std::shared_ptr<const MapNode>;

}  // namespace

struct MapReader::Impl {
  const ObjectReader& objects;
  const ObjectKind kind;
  mutable ShardedCache<ObjectId, MapNode, ObjectIdHash> cache;

  Result<NodePointer> Node(const ObjectId& id) const {
    return cache.GetOrLoad(id, [&]() -> Result<NodePointer> {
      auto bytes = objects.ReadObject(kind, id);
      if (!bytes) {
        // Something names this node: that it is missing is damage, and must not read as "no such name".
        if (bytes.error().code == ENOENT) bytes.error().code = EIO;
        return tl::make_unexpected(std::move(bytes).error());
      }
      bytes->shrink_to_fit();
      auto node = MapNode::Decode(kind, std::move(*bytes));
      if (!node) return Annotate(std::move(node).error(), "object " + id.Hex());
      return node;
    });
  }

  // The node below child i, checked against what its parent says of it: the level falls, so no damage makes an endless
  // descent, and the last key and the count are as promised, so a search cannot go astray.
  Result<NodePointer> Child(const MapNode& parent, size_t i) const {
    const ObjectId id = parent.child(i);
    ASSIGN_OR_RETURN(NodePointer node, Node(id));
    if (node->level() + 1 != parent.level() || node->size() == 0 || node->key(node->size() - 1) != parent.key(i) ||
        (i > 0 && node->key(0) <= parent.key(i - 1)) || node->leaf_count() != parent.child_count(i)) {
      return Fail(EIO, "object {}: a map node that does not fit the one above it", id.Hex());
    }
    return node;
  }
};

namespace {

// A place in a map: the path of nodes from the root to it. The top frame may be an inner node; then what the cursor
// stands at is a whole subtree that was not opened.
template <typename Nodes>
class Cursor {
 public:
  explicit Cursor(const Nodes& nodes) : nodes_(nodes) {}

  // A zero id: the empty map.
  Status Start(const ObjectId& root) {
    if (root.IsZero()) return {};
    ASSIGN_OR_RETURN(NodePointer node, nodes_.Node(root));
    if (node->size() > 0) frames_.push_back({root, std::move(node), 0});
    return {};
  }
  bool AtEnd() const { return frames_.empty(); }
  // Level of what it stands at: -1 a pair, L the unopened node of level L.
  int level() const { return frames_.back().node->level() - 1; }
  const MapNode& node() const { return *frames_.back().node; }
  size_t index() const { return frames_.back().index; }
  void SetIndex(size_t index) { frames_.back().index = index; }
  ObjectId subtree() const { return node().child(index()); }
  std::string_view key() const { return node().key(index()); }
  std::string_view value() const { return node().value(index()); }

  Status Open() {
    const ObjectId id = subtree();
    ASSIGN_OR_RETURN(NodePointer child, nodes_.Child(node(), index()));
    frames_.push_back({id, std::move(child), 0});
    return {};
  }
  Status OpenToPair() {
    while (level() >= 0) TRY(Open());
    return {};
  }
  void Next() {
    while (!frames_.empty() && ++frames_.back().index == frames_.back().node->size()) frames_.pop_back();
  }
  // If it stands at the beginning of the opened node `id`, steps over all of that node.
  bool SkipOpened(const ObjectId& id) {
    for (size_t depth = frames_.size(); depth-- > 0 && frames_[depth].index == 0;) {
      if (frames_[depth].id != id) continue;
      frames_.resize(depth);
      Next();
      return true;
    }
    return false;
  }

 private:
  struct Frame {
    ObjectId id;
    NodePointer node;
    size_t index = 0;
  };
  const Nodes& nodes_;
  std::vector<Frame> frames_;
};

template <typename Nodes>
Status VisitRest(Cursor<Nodes>& cursor, const MapReader::Visit& visit) {
  while (!cursor.AtEnd()) {
    TRY(cursor.OpenToPair());
    if (!visit(cursor.key(), cursor.value())) break;
    cursor.Next();
  }
  return {};
}

}  // namespace

MapReader::MapReader(const ObjectReader& objects, ObjectKind kind, size_t cache_bytes)
    : impl_(new Impl{objects, kind, {cache_bytes, kMapNodeMaxBytes}}) {}
MapReader::~MapReader() = default;

Result<std::shared_ptr<const MapNode>> MapReader::Node(const ObjectId& id) const { return impl_->Node(id); }

Result<std::optional<std::string>> MapReader::Find(const ObjectId& root, std::string_view key) const {
  if (root.IsZero()) return std::nullopt;
  ASSIGN_OR_RETURN(NodePointer node, impl_->Node(root));
  for (;;) {
    const size_t i = node->LowerBound(key);
    if (i == node->size()) return std::nullopt;
    if (node->level() == 0) {
      if (node->key(i) != key) return std::nullopt;
      return std::string(node->value(i));
    }
    ASSIGN_OR_RETURN(node, impl_->Child(*node, i));
  }
}

Result<uint64_t> MapReader::Count(const ObjectId& root) const {
  if (root.IsZero()) return 0;
  ASSIGN_OR_RETURN(const NodePointer node, impl_->Node(root));
  return node->leaf_count();
}

Status MapReader::Scan(const ObjectId& root, std::string_view from, const Visit& visit) const {
  Cursor cursor(*impl_);
  TRY(cursor.Start(root));
  while (!cursor.AtEnd()) {
    const size_t i = cursor.node().LowerBound(from);
    if (i == cursor.node().size()) return {};  // only at the root: below it, the last key is known to be >= from
    cursor.SetIndex(i);
    if (cursor.level() < 0) break;
    TRY(cursor.Open());
  }
  return VisitRest(cursor, visit);
}

Status MapReader::ScanFrom(const ObjectId& root, uint64_t index, const Visit& visit) const {
  Cursor cursor(*impl_);
  TRY(cursor.Start(root));
  while (!cursor.AtEnd()) {
    const MapNode& node = cursor.node();
    size_t i = 0;
    if (node.level() == 0) {
      if (index >= node.size()) return {};
      i = static_cast<size_t>(index);
    } else {
      for (; i < node.size() && index >= node.child_count(i); ++i) index -= node.child_count(i);
      if (i == node.size()) return {};
    }
    cursor.SetIndex(i);
    if (cursor.level() < 0) break;
    TRY(cursor.Open());
  }
  return VisitRest(cursor, visit);
}

Status MapReader::Difference(const ObjectId& left_root, const ObjectId& right_root,
                             const VisitDifference& visit) const {
  if (left_root == right_root) return {};
  Cursor left(*impl_), right(*impl_);
  TRY(left.Start(left_root));
  TRY(right.Start(right_root));
  while (!left.AtEnd() && !right.AtEnd()) {
    const int left_level = left.level(), right_level = right.level();
    if (left_level >= 0 && left_level == right_level) {
      if (left.subtree() == right.subtree()) {
        left.Next();
        right.Next();
        continue;
      }
      TRY(left.Open());
      TRY(right.Open());
    } else if (left_level > right_level) {
      // The right side may have gone into the same subtree while the left one was not yet there.
      if (right.SkipOpened(left.subtree())) {
        left.Next();
        continue;
      }
      TRY(left.Open());
    } else if (right_level > left_level) {
      if (left.SkipOpened(right.subtree())) {
        right.Next();
        continue;
      }
      TRY(right.Open());
    } else if (const int order = left.key().compare(right.key()); order < 0) {
      TRY(visit(left.key(), left.value(), std::nullopt));
      left.Next();
    } else if (order > 0) {
      TRY(visit(right.key(), std::nullopt, right.value()));
      right.Next();
    } else {
      if (left.value() != right.value()) TRY(visit(left.key(), left.value(), right.value()));
      left.Next();
      right.Next();
    }
  }
  for (; !left.AtEnd(); left.Next()) {
    TRY(left.OpenToPair());
    TRY(visit(left.key(), left.value(), std::nullopt));
  }
  for (; !right.AtEnd(); right.Next()) {
    TRY(right.OpenToPair());
    TRY(visit(right.key(), std::nullopt, right.value()));
  }
  return {};
}

}  // namespace mirage
