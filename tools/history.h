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
Result<std::vector<HistoryVersion>> ReadHistory(const ObjectReader& reader, const std::vector<ObjectId>& tips,
                                                const std::vector<ObjectId>& excluded);

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
