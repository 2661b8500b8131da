// The read-only tree of a library: MOUNT/<branch>/<tag>/..., and MOUNT/<branch>/latest, a symbolic link to the first
// tag of the branch's head. The two upper levels follow the library's refs (one second at most); below a tag nothing
// ever changes, so the kernel is told to remember it for ever.
//
// st_ino comes from content: a hash of (entry with its content or subtree id, path from the version's root); for a
// hard-link group, of its first path and its members. Equal files under equal paths therefore show the same st_ino in
// all versions, which is what lets `diff -r` skip them; the path is in it because two equal directories in one version
// must not look like one. The kernel's number (NodeId) is the same hash for all but directories: equal files share one
// page cache. Directories get their own from (branch, tag, manifest, path), since the kernel allows a directory one
// parent only.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "mirfs/inode_table.h"
#include "mirfs/invalidator.h"
#include "store/library.h"
#include "store/tree_reader.h"

namespace mirage {

class VersionsFs final : public Filesystem {
 public:
  explicit VersionsFs(std::shared_ptr<Library> library);
  ~VersionsFs() override;

  bool read_only() const override { return true; }
  Result<NodeAttributes> Lookup(NodeId parent, std::string_view name) override;
  double NegativeTimeout(NodeId parent) override;
  void Forget(NodeId node, uint64_t count) override;
  Result<NodeAttributes> GetAttributes(NodeId node) override;
  Result<std::string> ReadLink(NodeId node) override;
  Status ReadDirectory(NodeId node, Handle handle, uint64_t offset, bool plus,
                       const std::function<bool(const DirectoryItem&)>& add) override;
  Status Read(NodeId node, Handle handle, uint64_t offset, size_t size, std::string* out) override;
  Result<std::string> GetXattr(NodeId node, std::string_view name) override;
  Result<std::vector<std::string>> ListXattrs(NodeId node) override;
  Result<struct statvfs> StatFilesystem() override;

  // Tells the kernel what differs between two states of the refs. Called by the watcher behind a refresh.
  void InvalidateChanges(const Snapshot& before, const Snapshot& after, Invalidator& invalidator) const;

  size_t inode_count() const { return inodes_.size(); }  // what the kernel holds; the root is not in it

 private:
  class LinkTable;
  struct Child;
  using AddItem = std::function<bool(const DirectoryItem&)>;

  Result<std::shared_ptr<const Inode>> Find(NodeId node) const;
  std::shared_ptr<DirectoryInode> MakeBranch(const std::string& name) const;
  Result<std::shared_ptr<const Inode>> MakeTag(const DirectoryInode& branch, const std::string& tag,
                                               const ObjectId& manifest) const;
  Result<std::shared_ptr<const Inode>> MakeLatest(const DirectoryInode& branch, const Snapshot& snapshot) const;
  Result<std::shared_ptr<const Inode>> MakeChild(const DirectoryInode& directory, std::string_view name,
                                                 const Entry& entry) const;
  Result<struct stat> Stat(const Inode& inode) const;
  Result<NodeAttributes> Acquired(const Inode& parent, std::shared_ptr<const Inode> inode);
  Result<bool> Emit(const Inode& parent, std::string_view name, uint64_t next_offset,
                    std::shared_ptr<const Inode> inode, bool plus, const AddItem& add);
  Status ListRefs(const DirectoryInode& directory, uint64_t offset, bool plus, const AddItem& add);
  Status ListTree(const DirectoryInode& directory, uint64_t offset, bool plus, const AddItem& add);
  Result<std::shared_ptr<const LinkTable>> Links(const ObjectId& links) const;
  uint64_t Hash(std::string_view bytes) const;

  const std::shared_ptr<Library> library_;
  const TreeReader reader_;
  const uint64_t seed_;
  uid_t uid_;
  gid_t gid_;
  std::shared_ptr<const DirectoryInode> root_;
  InodeTable inodes_;
  struct LinkSlot {
    ObjectId links;
    std::shared_ptr<const LinkTable> table;
  };
  mutable std::mutex links_mutex_;
  mutable std::array<LinkSlot, 8> links_;  // the link tables used last; guarded by links_mutex_, like the next
  mutable size_t links_slot_ = 0;          // filled next
};

}  // namespace mirage
