// A version's tree: lookup by path, iteration, hard-link groups. Over a Library's caches, or over objects that a transaction
// has staged; thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/library.h"

namespace mirage {

// One name in a directory.
struct NamedEntry {
  std::string name;
  Entry entry;
};

class TreeReader {
 public:
  explicit TreeReader(std::shared_ptr<const Library> library);
  // Trees, links and attributes from `objects`, which must outlive it; contents only as far as the library has them.
  TreeReader(std::shared_ptr<const Library> library, const ObjectReader& objects);

  Result<std::optional<Entry>> Lookup(const ObjectId& tree, std::string_view name) const;
  Result<std::vector<NamedEntry>> List(const ObjectId& tree) const;  // whole directory; for small ones
  // From position `index` on, in order, until visit returns false.
  Status Scan(const ObjectId& tree, uint64_t index, const std::function<bool(std::string_view name, const Entry&)>& visit) const;
  Result<uint64_t> Count(const ObjectId& tree) const;

  // "/etc/passwd" from a root entry, following no symlink. ENOENT, ENOTDIR. "" and "/" are the root; "." and empty components are skipped; ".." is EINVAL.
  Result<Entry> Find(const Entry& root, std::string_view path) const;
  // Every entry below `root` in canonical order: visit(path without leading slash, entry) -> false: do not descend into this directory.
  using Visit = std::function<Result<bool>(const std::string& path, const Entry& entry)>;
  Status Walk(const Entry& root, const Visit& visit) const;

  Result<std::string> SymlinkTarget(const Entry& entry) const;  // inline or from its content
  Result<XattrSet> Xattrs(const Entry& entry) const;
  // EIO for all that is damaged or missing; never a wrong byte.
  Status Read(const Entry& entry, uint64_t offset, size_t length, Pieces* out) const;
  Status Read(const Entry& entry, uint64_t offset, size_t length, std::string* out) const;

  // First path of the hard-link group `path` is in, or nothing. `links`: the manifest's.
  Result<std::optional<std::string>> LinkGroup(const ObjectId& links, std::string_view path) const;
  // All groups: first path -> its members, sorted (the first among them). O(size of the links map).
  Result<std::map<std::string, std::vector<std::string>>> LinkGroups(const ObjectId& links) const;

  const MapReader& trees() const { return *trees_; }
  const MapReader& links() const { return *links_; }

 private:
  std::shared_ptr<const Library> library_;
  std::shared_ptr<const MapReader> own_trees_, own_links_;
  const ObjectReader* objects_;
  const MapReader *trees_, *links_;
};

}  // namespace mirage
