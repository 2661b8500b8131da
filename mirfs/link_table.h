// A version's hard-link groups, made ready for one question: is this path in a group, and in which? Most paths are in
// none, which a hash tells; who is in one is asked of the map itself, so that no collision gives a wrong answer.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/tree_reader.h"

namespace mirage {

class LinkTable {
 public:
  struct Group {
    uint64_t first_path_hash = 0, members_hash = 0;
    uint32_t count = 0;
  };
  using Hash = std::function<uint64_t(std::string_view)>;
  // `links`: the manifest's, not zero.
  static Result<std::shared_ptr<const LinkTable>> Load(const TreeReader& reader, const ObjectId& links,
                                                       const Hash& hash);
  // Null: in none. `path_hash`: the hash of `path`.
  Result<const Group*> Find(const TreeReader& reader, const std::string& path, uint64_t path_hash) const;

  size_t bytes() const { return bytes_; }  // of memory, about

 private:
  size_t bytes_ = 0;
  ObjectId links_;
  std::vector<uint64_t> path_hashes_;              // of all members, sorted
  std::unordered_map<std::string, Group> groups_;  // by first path
};

}  // namespace mirage
