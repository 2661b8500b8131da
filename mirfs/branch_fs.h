// A branch's head with an overlay above, as one writable POSIX tree.
//
// Identity. An inode of the base version is named by its path there (of a hard-link group: the first): its node id is a hash
// of that path, top bit clear; a new inode takes a counter, top bit set. Neither copy-up nor rename nor a remount changes it.
// An inode that changed has a record in the overlay's database; directory entries there cover the lower ones; a renamed lower
// directory is one record and two entries, whatever is below it. See overlay_db.h for the keys, upper_file.h for file bytes.
//
// Every operation on names or attributes is one atomic batch. They survive this process as they were answered, and a power cut
// as a prefix of that order; fsync makes the file and all before it durable. A background thread syncs every few seconds, and
// only then removes data files of what was unlinked, so that no name comes back without its bytes. Nor does a rename over another
// file come without them: the kernel begins to write its file's bytes at the rename, and no sync of the database overtakes them. (Of
// a file of which some blocks are lower, bytes and block map go to the disk and the database before the rename.)
//
// Locks, in this order: Listing::mutex, namespace_ (shared: lookups, listings; exclusive: changes of names), Node::mutex (several only under
// namespace_ exclusive, by ascending id), UpperFile's, the database's, renamed_mutex_, table_mutex_ (under which the database may be read: its last lock is a leaf). UpperFile::sync_mutex_ comes before Node::mutex.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "mirfs/filesystem.h"
#include "mirfs/overlay.h"
#include "mirfs/upper_file.h"
#include "store/tree_reader.h"

namespace mirage {

class BranchFs final : public Filesystem {
 public:
  // `overlay` must outlive it. Cleans up what a crash left (orphans, data files without a record).
  static Result<std::unique_ptr<BranchFs>> Open(std::shared_ptr<Library> library, Overlay& overlay);
  ~BranchFs() override;  // Close, its error unheard
  // Everything answered so far is on the disk when it returns.
  Status SyncAll();
  // Removes orphans and stops the background thread. Names and block maps are on the disk when it returns; of data only
  // what was synced: for the rest there is DataDirectory::SyncAll. Nothing may be called afterwards.
  Status Close();

  bool read_only() const override { return false; }
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
  Result<Handle> OpenDirectory(NodeId node) override;
  void ReleaseDirectory(NodeId node, Handle handle) override;
  Result<OpenFile> Open(NodeId node, int flags, bool host_file) override;
  void HostFileRefused(NodeId node, OpenFile* opened) override;
  void Release(NodeId node, Handle handle) override;
  Status Sync(NodeId node, Handle handle, bool data_only) override;
  Result<NodeAttributes> Create(NodeId parent, std::string_view name, uint32_t mode, int flags, const Caller& caller,
                                bool host_file, OpenFile* opened) override;
  Result<size_t> Write(NodeId node, Handle handle, uint64_t offset, std::string_view bytes) override;
  Result<NodeAttributes> SetAttributes(NodeId node, const AttributeChange& change) override;
  Result<NodeAttributes> MakeNode(NodeId parent, std::string_view name, uint32_t mode, uint64_t rdev,
                                  const Caller& caller) override;
  Result<NodeAttributes> MakeSymlink(NodeId parent, std::string_view name, std::string_view target,
                                     const Caller& caller) override;
  Result<NodeAttributes> Link(NodeId node, NodeId parent, std::string_view name) override;
  Status Unlink(NodeId parent, std::string_view name) override;
  Status RemoveDirectory(NodeId parent, std::string_view name) override;
  Status Rename(NodeId from, std::string_view from_name, NodeId to, std::string_view to_name, unsigned flags) override;
  Status SetXattr(NodeId node, std::string_view name, std::string_view value, int flags) override;
  Status RemoveXattr(NodeId node, std::string_view name) override;
  Status Allocate(NodeId node, Handle handle, int mode, uint64_t offset, uint64_t length) override;

 private:
  struct Node {
    explicit Node(NodeId node_id) : id(node_id) {}
    const NodeId id;
    uint64_t lookups = 0, handles = 0, pins = 0;    // guarded by table_mutex_; all zero: leaves the table
    bool in_dirty_list = false;                     // guarded by table_mutex_
    std::atomic<bool> stored{false};                // has a record in the database
    std::atomic<NodeId> parent{0};                  // directories: where it was last seen
    std::atomic<uint64_t> generation{0};            // directories: counts changes of names
    mutable std::shared_mutex mutex;                // guards the rest (record.lower and record.origin never change)
    InodeRecord record;
    std::unique_ptr<UpperFile> file;                // regular files, made when first asked for
    bool removed = false;                           // its record is gone from the database
    uint64_t host_handles = 0;                      // of `handles`, those whose bytes the kernel reads and writes itself
    bool cache_is_old = false;                      // it did so since the kernel last read through us
    uint64_t changed = 0;                           // OverlayDb::sequence() of its last change
  };
  // Keeps a node in the table while it lives.
  class Pin {
   public:
    Pin() = default;
    Pin(BranchFs* fs, std::shared_ptr<Node> node) : fs_(fs), node_(std::move(node)) {}
    Pin(Pin&& other) noexcept = default;
    Pin& operator=(Pin&& other) noexcept;
    ~Pin() { Drop(); }
    Node& operator*() const { return *node_; }
    Node* operator->() const { return node_.get(); }
    Node* get() const { return node_.get(); }
    explicit operator bool() const { return node_ != nullptr; }

   private:
    void Drop();
    BranchFs* fs_ = nullptr;
    std::shared_ptr<Node> node_;
  };
  // The exclusive locks of several nodes, taken by ascending id. Null pointers are skipped.
  class NodeLocks {
   public:
    explicit NodeLocks(std::vector<Node*> nodes);

   private:
    std::vector<std::unique_lock<std::shared_mutex>> locks_;
  };
  // What a name is: an upper child by id, or a lower entry.
  struct Found {
    FileType type = FileType::kRegular;
    std::optional<NodeId> child;   // set: from an entry of the overlay
    Entry lower;                   // else
  };
  struct LinkGroup {
    std::string first;
    uint32_t members = 0;
  };
  struct ListedItem {
    std::string name;
    uint64_t inode = 0;
    Found found;
  };
  struct Listing {
    std::mutex mutex;
    uint64_t generation = 0;
    std::vector<ListedItem> items;
  };
  struct Stamps {  // what an operation changes of a record, to put back when its batch fails
    explicit Stamps(Node& owner) : node(owner), mtime(owner.record.mtime), ctime(owner.record.ctime), nlink(owner.record.nlink) {}
    void Restore() const;
    Node& node;
    struct timespec mtime, ctime;
    uint32_t nlink;
  };

  BranchFs(std::shared_ptr<Library> library, Overlay& overlay);

  // branch_fs.cc: opening, the node table, the background thread.
  Status Start();
  Status RemoveOrphans();
  Status RemoveUnnamedFiles();
  Result<Pin> GetNode(NodeId id);                        // ESTALE
  Result<Pin> GetDirectory(NodeId id);                   // and ENOTDIR
  Result<Pin> NodeOf(Node& directory, std::string_view name, const Found& found);
  Result<Pin> NodeOfChild(NodeId id);
  Result<Pin> NodeOfLower(std::string path, const Entry& entry);
  NodeId LowerId(std::string_view origin) const;
  const LinkGroup* GroupOf(const std::string& path) const;
  void Unpin(Node& node);
  void EraseIfUnused(Node& node);                        // table_mutex_ held
  void AddLookup(Node& node);
  void AddHandle(Node& node);
  bool HasHandles(Node& node);
  void MarkDirty(Node& node);
  void BackgroundLoop();
  Status Housekeep();                                    // one round of the background thread
  void Discard(NodeId inode);                            // its data file, once the database is synced
  Status WriteBeforeNames(Node& node);                   // its data, before the database is synced; node.mutex held exclusively
  Status SyncRenamed();                                  // the data of those; whatever locks are held but table_mutex_

  // branch_nodes.cc: attributes, extended attributes.
  Result<NodeAttributes> Attributes(Node& node) const;   // node.mutex held
  Result<struct stat> StatOf(Node& node) const;          // likewise
  Result<XattrSet> XattrsOf(const Node& node) const;     // likewise
  Status PutRecord(Node& node);                          // node.mutex held exclusively
  Result<NodeAttributes> Enter(Node& node);              // attributes, and one lookup more

  // branch_namespace.cc: names.
  Result<std::optional<Found>> Find(Node& directory, std::string_view name) const;  // namespace_ held
  Result<bool> LowerHas(const Node& directory, std::string_view name) const;
  Result<bool> IsEmpty(Node& directory) const;
  Status MakeListing(Node& directory, Listing* listing) const;
  Status RemoveName(OverlayDb::Batch& batch, Node& directory, std::string_view name);
  void DropLink(OverlayDb::Batch& batch, Node& node, const struct timespec& now, bool* gone);
  Result<Pin> MakeChild(Node& parent, std::string_view name, InodeRecord record, uint32_t umask, const Caller& caller,
                        bool with_file);                 // with_file: its data file is wanted at once
  Status WriteBatch(OverlayDb::Batch& batch, const std::vector<Node*>& nodes);
  NodeId TakeInodes(OverlayDb::Batch& batch, uint64_t count);  // the first; namespace_ held exclusively
  Status RemoveWhiteouts(OverlayDb::Batch& batch, Node& directory) const;  // all of an empty directory's entries
  bool IsAncestor(NodeId ancestor, NodeId node);
  // Before a rename over another file, with no locks held: if the file is partly lower, what was written of it is on the disk and in
  // the database.
  Status SyncIfPartlyLower(Node& from, std::string_view from_name, Node& to, std::string_view to_name);

  // branch_io.cc: file bytes.
  // ENOSPC when `bytes` more would take the last of the disk: data first, then new names, so that names can still be removed.
  enum class Room { kData, kName };
  Status CheckRoom(uint64_t bytes, Room room);
  // What the kernel writes by itself is not asked about: then the room that is left for names is a file. False: there is no room
  // for one.
  bool HoldReserve();
  void GiveReserve();                                    // for the database's next write
  Result<UpperFile*> FileOf(Node& node) const;           // node.mutex held exclusively, or node.file set
  Result<UpperFile*> WritableFileOf(Node& node);         // makes the data file; node.mutex held exclusively
  Status RecordCut(Node& node, UpperFile& file);         // a data file's end before lower_valid is the new one; likewise
  Status Truncate(Node& node, uint64_t size);            // likewise
  void CloseIfIdle(Node& node);                          // likewise
  OpenFile MakeHandle(Node& node, int flags, bool host_file);  // likewise
  // The data file, if it holds all of the file's bytes and can be read and written without us; -1. Likewise.
  Result<int> HostFileOf(Node& node, int flags);
  Status SyncNode(Node& node, UpperFile::For whom);

  const std::shared_ptr<Library> library_;
  Overlay& overlay_;
  OverlayDb& db_;
  DataDirectory& data_;
  const TreeReader trees_;
  std::string name_, base_name_;                         // for the log: the overlay, and the version below it
  uint64_t seed_ = 0;                                    // of the library: node ids differ between libraries
  std::unordered_map<std::string, LinkGroup> groups_;    // base paths in hard-link groups; constant after Start

  mutable std::shared_mutex namespace_;
  uint64_t next_inode_ = 0, reserved_inode_ = 0;         // guarded by namespace_

  std::mutex table_mutex_;
  std::unordered_map<NodeId, std::shared_ptr<Node>> nodes_;
  std::unordered_map<Handle, std::shared_ptr<Listing>> listings_;
  Handle next_handle_ = 1;
  std::vector<std::shared_ptr<Node>> dirty_;             // their block maps are ahead of the database
  std::vector<NodeId> discarded_;                        // data files to remove after the next sync
  std::mutex renamed_mutex_;                             // before table_mutex_
  std::map<NodeId, Pin> renamed_;                        // over others since the last sync; guarded by renamed_mutex_

  std::atomic<bool> data_written_{false};                // since the last SyncAll
  std::atomic<uint64_t> host_handles_{0};                // through which the kernel may be writing
  std::mutex reserve_mutex_;                             // a leaf
  bool reserve_held_ = false;                            // guarded by it
  std::atomic<int64_t> room_{0};                         // bytes that may be written before looking at the disk again

  std::mutex background_mutex_;
  std::condition_variable background_wake_;
  bool background_now_ = false, background_stop_ = false;
  std::mutex housekeeping_mutex_;                        // one round at a time; before all others
  std::thread background_;
};

}  // namespace mirage
