// The read-only tree of a library: MOUNT/<branch>/<tag>/..., and MOUNT/<branch>/latest, a symbolic link to the first
// tag of the branch's head. The two upper levels follow the library's refs (one second at most); below a tag nothing
// ever changes, so the kernel is told to remember it for ever. A mount may also show one branch, or one version, at the
// mount point itself.
//
// st_ino comes from content: a hash of (entry with its content or subtree id, path from the version's root); for a
// hard-link group, of its first path and its members. Equal files under equal paths therefore show the same st_ino in
// all versions, which is what lets `diff -r` skip them; the path is in it because two equal directories in one version
// must not look like one. The kernel's number (NodeId) is the same hash for all but directories: equal files share one
// page cache. Directories get their own from (branch, tag, manifest, path), since the kernel allows a directory one
// parent only.
//
// Beside that there is MOUNT/.mirage, which no listing shows (version_views.cc):
//   .mirage/by-id/ID/...                                 a version by its id
//   .mirage/diff/A..B/{added,modified,removed}/...       the names in which two versions differ
// and attributes that no list names: user.mirage.version, .introduced, .sha256 (version_xattrs.cc). What makes them is
// asked of the library only when somebody looks.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mirfs/delta_tree.h"
#include "mirfs/inode_table.h"
#include "mirfs/invalidator.h"
#include "mirfs/link_table.h"
#include "store/library.h"
#include "store/tree_reader.h"

namespace mirage {

struct SmallFile {
  NodeId node = 0;
  uint64_t size = 0;
};

class VersionsFs final : public Filesystem {
 public:
  struct Options {
    std::string branch;               // this branch at the mount point; empty: all
    std::optional<ObjectId> version;  // this version at the mount point
    std::string version_name;         // what it was asked for by
    std::optional<uint32_t> uid, gid; // the owner everything is shown with
    size_t link_tables_bytes = 32 << 20;  // of the hard links of versions; the newest version's are kept in any case
    double refs_timeout_s = 1;        // how long the kernel may believe a ref; invalidation is usually sooner
    uint64_t (*hash)(std::string_view bytes, uint64_t seed) = nullptr;  // tests: one that collides
  };
  // ENOENT, EIO: the version to show cannot be read.
  static Result<std::unique_ptr<VersionsFs>> Open(std::shared_ptr<Library> library, const Options& options);
  ~VersionsFs() override;

  bool read_only() const override { return true; }
  Result<NodeAttributes> Lookup(NodeId parent, std::string_view name) override;
  double NegativeTimeout(NodeId parent) override;
  void Forget(NodeId node, uint64_t count) override;
  Result<NodeAttributes> GetAttributes(NodeId node) override;
  Result<std::string> ReadLink(NodeId node) override;
  Status ReadDirectory(NodeId node, Handle handle, uint64_t offset, bool plus,
                       const std::function<bool(const DirectoryItem&)>& add) override;
  Status ReadPieces(NodeId node, Handle handle, uint64_t offset, size_t size, Pieces* out) override;
  Result<uint64_t> Seek(NodeId node, Handle handle, uint64_t offset, int whence) override;
  Result<std::string> GetXattr(NodeId node, std::string_view name) override;
  Result<std::vector<std::string>> ListXattrs(NodeId node) override;
  Result<struct statvfs> StatFilesystem() override;
  std::string Describe(NodeId node) override;

  // Tells the kernel what differs between two states of the refs, having leased versions that lost a name while the kernel
  // holds them. Called by the watcher behind a refresh.
  void InvalidateChanges(const Snapshot& before, const Snapshot& after, Invalidator& invalidator) const;

  // For reading ahead (scan_ahead.h, read_around.h). The directory of a version in which the kernel found the node last; 0: none.
  NodeId DirectoryOf(NodeId node) const { return inodes_.Parent(node); }
  // The kernel was given the file's bytes, and has them unless it dropped them. Whether that was so before.
  bool MarkRead(NodeId node) { return inodes_.MarkRead(node); }
  bool WasRead(NodeId node) const { return inodes_.WasRead(node); }
  // The regular files among the first `most` names of a directory, in its order, that the kernel knows and that have 1 to
  // `largest` bytes. EINVAL: not a directory of a version. ESTALE.
  Result<std::vector<SmallFile>> SmallFilesOf(NodeId directory, size_t most, uint64_t largest) const;
  // Of a regular file that the kernel knows. ESTALE, EINVAL: not a file.
  Result<uint64_t> SizeOf(NodeId node) const;
  // Reads up to `length` bytes of a file at `offset`, fewer only at its end, and calls `use` with them; meanwhile the
  // number stays this file's. ESTALE, EINVAL: not a file, EIO.
  Status WithBytes(NodeId node, uint64_t offset, size_t length, const std::function<void(std::string_view)>& use);

  size_t inode_count() const { return inodes_.size(); }  // what the kernel holds; the root is not in it

 private:
  struct DeltaView;
  struct DeltaInode;
  // Where a node was found: for a file that several versions share, the place it was looked up at last.
  struct Place {
    std::shared_ptr<const DirectoryInode> directory;  // of a directory: itself
    std::string path;                                 // from the version's root
  };
  using AddItem = std::function<bool(const DirectoryItem&)>;

  VersionsFs(std::shared_ptr<Library> library, const Options& options);

  NodeId Preferred(const Inode& inode) const;
  Result<std::shared_ptr<const Inode>> Find(NodeId node) const;
  std::shared_ptr<DirectoryInode> MakeBranch(const std::string& name) const;
  Result<std::shared_ptr<DirectoryInode>> MakeVersion(const std::string& place, const std::string& name,
                                                      const ObjectId& manifest) const;
  Result<std::shared_ptr<const Inode>> MakeTag(const DirectoryInode& branch, const std::string& tag,
                                               const ObjectId& manifest) const;
  Result<std::shared_ptr<const Inode>> MakeLatest(const DirectoryInode& branch, const Snapshot& snapshot) const;
  Result<std::shared_ptr<const Inode>> MakeChild(const DirectoryInode& directory, std::string_view name,
                                                 const Entry& entry) const;
  Status Lease(const MountedVersion& version) const;
  Status LeaseAllOf(const DirectoryInode& directory) const;  // what its names are read from
  void LeaseKnown(const Snapshot& before, const Snapshot& after) const;
  Result<std::shared_ptr<const Inode>> Child(const DirectoryInode& directory, std::string_view name) const;

  // version_views.cc
  std::shared_ptr<DirectoryInode> MakeViews() const;
  std::shared_ptr<DirectoryInode> MakeView(Inode::Kind kind, const std::string& text, const DirectoryInode& parent) const;
  Result<std::shared_ptr<const Inode>> MakeById(const DirectoryInode& parent, std::string_view name) const;
  Result<std::shared_ptr<const Inode>> MakeRange(const DirectoryInode& parent, std::string_view name) const;
  std::shared_ptr<const Inode> MakeDeltaPart(const DeltaInode& delta, size_t part) const;
  Result<std::shared_ptr<const Inode>> MakeDeltaChild(const DeltaInode& directory, std::string_view name,
                                                      const DeltaEntry& entry) const;
  Result<std::shared_ptr<const Inode>> ViewChild(const DirectoryInode& directory, std::string_view name) const;
  Status ListView(NodeId node, const DirectoryInode& directory, uint64_t offset, bool plus, const AddItem& add);

  // version_xattrs.cc
  Result<Place> PlaceOf(NodeId node, const std::shared_ptr<const Inode>& inode) const;
  Result<std::string> OwnXattr(NodeId node, const std::shared_ptr<const Inode>& inode, std::string_view name) const;

  NodeId KnownBranch(const std::string& name) const;
  Result<struct stat> Stat(const Inode& inode) const;
  Result<NodeAttributes> Acquired(NodeId parent_node, const Inode& parent, std::shared_ptr<const Inode> inode);
  Result<bool> Emit(NodeId parent_node, const Inode& parent, std::string_view name, uint64_t next_offset,
                    std::shared_ptr<const Inode> inode, bool plus, const AddItem& add);
  Status ListRefs(NodeId node, const DirectoryInode& directory, uint64_t offset, bool plus, const AddItem& add);
  Status ListTree(NodeId node, const DirectoryInode& directory, uint64_t offset, bool plus, const AddItem& add);
  Result<std::shared_ptr<const LinkTable>> Links(const ObjectId& links) const;
  Status ReadWhereItLies(const std::function<Status()>& read) const;  // again, if what is read may have moved
  uint64_t Hash(std::string_view bytes) const { return Hash(bytes, seed_); }
  uint64_t Hash(std::string_view bytes, uint64_t seed) const;

  const std::shared_ptr<Library> library_;
  const TreeReader reader_;
  const Options options_;
  const uint64_t seed_;
  const uid_t uid_;  // of what belongs to no version
  const gid_t gid_;
  std::shared_ptr<const DirectoryInode> root_;
  InodeTable inodes_;
  struct LinkSlot {
    ObjectId links;
    std::shared_ptr<const LinkTable> table;
  };
  mutable std::mutex links_mutex_;
  mutable std::deque<LinkSlot> links_;  // the newest first: eight at most, and no more than fit; guarded by links_mutex_
};

}  // namespace mirage
