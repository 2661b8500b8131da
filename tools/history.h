// Versions reachable from others, children before parents, and how they are drawn.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "store/library.h"

namespace mirage {

struct HistoryVersion {
  ObjectId id;
  Manifest manifest;
};

// Reachable from `tips` and not from `excluded`; a child always before its parents, and among equals the newest first.
// With a `limit`, at least so many of them, if there are; on a branch without merges no more are read.
Result<std::vector<HistoryVersion>> ReadHistory(const ObjectReader& reader, const std::vector<ObjectId>& all_tips,
                                                const std::vector<ObjectId>& excluded, size_t limit = 0);

// The names that refs give to versions: "debian", then "debian/v1", ... in the order they were given.
Result<std::map<ObjectId, std::vector<std::string>>> NamesOfVersions(const Snapshot& snapshot);

// Draws versions as `git log --graph` does: one column for each line of descent that is open.
class HistoryGraph {
 public:
  struct Rows {
    std::vector<std::string> before;  // lines above the version's own
    std::string version;              // what stands left of the version
    std::vector<std::string> after;
  };
  // Versions come children first; `parents` are those that will come.
  Rows Next(const ObjectId& id, const std::vector<ObjectId>& parents);

 private:
  std::vector<ObjectId> columns_;  // the version each open line leads to
};

}  // namespace mirage
