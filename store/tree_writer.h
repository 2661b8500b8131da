// Builds a version's trees and links map from its entries. Shared by the importer and the committer.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/library.h"
#include "store/map_node.h"

namespace mirage {

// Entries come in canonical order: a directory before what is in it, names in one directory ascending as unsigned bytes
// (so "a", "a/x", "a-b"). Memory: one unfinished directory node a depth. Directory entries come without id and size; they are
// filled in when the directory is closed.
class TreeWriter {
 public:
  explicit TreeWriter(ObjectWriter& writer);
  ~TreeWriter();
  // `path` without leading slash; "" is the root and comes first. EINVAL: order broken, bad name, parent missing.
  Status Add(std::string_view path, Entry entry);
  Result<Entry> Finish();  // the root's entry, complete
  uint64_t file_count() const;   // entries below the root
  uint64_t total_bytes() const;  // sum of regular files' sizes

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Hard-link groups -> links map. Each group: two or more paths of one inode ("etc/a", no leading slash), in any order.
// Zero id when there is none.
Result<ObjectId> WriteLinks(ObjectWriter& writer, std::vector<std::vector<std::string>> groups);

struct TreeEdit {
  std::string name;
  std::optional<Entry> entry;  // nullopt: removed
};
// The directory `base` (zero id: empty) with edits applied (sorted by name, each name once). Unchanged nodes are not written again.
// Gives the id and the number of subdirectories (a directory entry's size).
struct EditedTree {
  ObjectId id;
  uint64_t subdirectories = 0;
};
Result<EditedTree> EditTree(ObjectWriter& writer, const MapReader& trees, const ObjectId& base, uint64_t base_subdirectories,
                            const std::vector<TreeEdit>& edits);

}  // namespace mirage
