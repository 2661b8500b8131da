#include "mirfs/link_table.h"

#include <algorithm>

namespace mirage {

Result<std::shared_ptr<const LinkTable>> LinkTable::Load(const TreeReader& reader, const ObjectId& links,
                                                         const Hash& hash) {
  auto table = std::make_shared<LinkTable>();
  table->links_ = links;
  ASSIGN_OR_RETURN(const auto groups, reader.LinkGroups(links));
  table->groups_.reserve(groups.size());
  std::string all;
  for (const auto& [first, members] : groups) {
    all.clear();
    for (const std::string& member : members) {
      table->path_hashes_.push_back(hash(member));
      all.append(member).push_back('\0');
    }
    table->bytes_ += sizeof(decltype(groups_)::value_type) + first.capacity() + 4 * sizeof(void*);  // a node of the map and its bucket
    table->groups_[first] = {hash(first), hash(all), static_cast<uint32_t>(members.size())};
  }
  table->path_hashes_.shrink_to_fit();
  table->bytes_ += sizeof *table + table->path_hashes_.size() * sizeof(uint64_t);
  std::sort(table->path_hashes_.begin(), table->path_hashes_.end());
  return table;
}

Result<const LinkTable::Group*> LinkTable::Find(const TreeReader& reader, const std::string& path,
                                                uint64_t path_hash) const {
  if (!std::binary_search(path_hashes_.begin(), path_hashes_.end(), path_hash)) return nullptr;
  ASSIGN_OR_RETURN(const auto first, reader.LinkGroup(links_, path));
  if (!first) return nullptr;
  const auto found = groups_.find(*first);
  return found == groups_.end() ? nullptr : &found->second;
}

}  // namespace mirage
