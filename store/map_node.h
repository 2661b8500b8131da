// A sorted map from byte keys to byte values, cut into nodes by its keys alone (a "prolly tree": the idea is Dolt's
// and Noms'; the split rule is FORMAT.md's). Directories (name -> Entry) and links (path -> first path) are such maps.
// The same set of pairs always gives the same nodes; changing one pair rewrites one node a level.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/object.h"

namespace mirage {

constexpr size_t kMapNodeBytes = 32 << 10;     // a map that encodes to no more than this is one leaf
constexpr size_t kMapNodeMaxBytes = 64 << 10;  // hard maximum of one node; one pair alone is always allowed
constexpr size_t kMaxNodeBytes = 256 << 10;    // what a decoder accepts

// Takes pairs in strictly ascending key order and writes nodes as they fill. Memory: one node a level.
class MapBuilder {
 public:
  MapBuilder(ObjectWriter& writer, ObjectKind kind);
  ~MapBuilder();
  Status Add(std::string_view key, std::string_view value);  // EINVAL: not ascending, or too long
  Result<ObjectId> Finish();                                 // the root node's id; an empty map is an empty leaf
  uint64_t count() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One decoded node: owns its bytes, finds without copying. Immutable and thread-safe.
class MapNode {
 public:
  static Result<std::shared_ptr<const MapNode>> Decode(ObjectKind kind, std::string bytes);  // checks every rule
  int level() const { return level_; }
  size_t size() const { return count_; }                 // pairs (level 0) or children
  uint64_t leaf_count() const;                           // pairs below and in it
  std::string_view key(size_t i) const;                  // level > 0: the last key of child i
  std::string_view value(size_t i) const;                // level 0
  ObjectId child(size_t i) const;                        // level > 0
  uint64_t child_count(size_t i) const;                  // level > 0: pairs below child i
  size_t LowerBound(std::string_view key) const;         // first i with key(i) >= key; size() if none
  size_t memory_bytes() const { return bytes_.capacity() + sizeof *this; }

 private:
  MapNode() = default;
  std::string bytes_;
  int level_ = 0;
  uint32_t count_ = 0;
  std::string_view At(size_t i) const;
};

// Reads nodes through a byte-limited cache shared by all maps of a process. Thread-safe.
class MapReader {
 public:
  MapReader(const ObjectReader& objects, ObjectKind kind, size_t cache_bytes);
  ~MapReader();
  Result<std::shared_ptr<const MapNode>> Node(const ObjectId& id) const;
  // The value of `key`, or nothing. O(log n) nodes.
  Result<std::optional<std::string>> Find(const ObjectId& root, std::string_view key) const;
  Result<uint64_t> Count(const ObjectId& root) const;
  // Calls `visit(key, value)` in order, from the first key >= `from`, until it returns false.
  using Visit = std::function<bool(std::string_view key, std::string_view value)>;
  Status Scan(const ObjectId& root, std::string_view from, const Visit& visit) const;
  // The same from the pair at position `index` on: a directory's offsets are positions.
  Status ScanFrom(const ObjectId& root, uint64_t index, const Visit& visit) const;
  // Pairs that differ, in key order; equal nodes are pruned by id. Zero id: the empty map. A missing side is nullopt.
  using VisitDifference = std::function<Status(std::string_view key, std::optional<std::string_view> left,
                                               std::optional<std::string_view> right)>;
  Status Difference(const ObjectId& left, const ObjectId& right, const VisitDifference& visit) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
