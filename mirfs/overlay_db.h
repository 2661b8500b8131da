// An overlay's RocksDB: typed keys, atomic batches, and the one place that knows what of it has reached the disk.
//
//   'I' inode               -> InodeRecord (inode_record.h)
//   'D' directory, name     -> Dirent: a child, or a whiteout of the lower name
//   'B' inode, piece        -> 128 bytes: which of 1024 4-KiB blocks of the file are the upper file's (upper_file.h)
//   'O' inode               -> an orphan: unlinked, but still open when this was written
//   'S'                     -> the next upper inode number that was never given out
// Numbers in keys are big-endian, in values little-endian. A batch is in the write-ahead log (page cache) when Write returns:
// it survives this process; Sync makes it survive a power cut. Batches survive as a prefix of the order of their writes.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "mirfs/inode_record.h"
#include "store/env.h"
#include "store/result.h"

namespace mirage {

struct Dirent {
  bool whiteout = false;
  uint64_t child = 0;                    // not for a whiteout
  FileType type = FileType::kRegular;    // of the child
};

class OverlayDb {
 public:
  class Batch {
   public:
    Batch();
    ~Batch();
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;
    void PutInode(uint64_t inode, const InodeRecord& record);
    void DeleteInode(uint64_t inode);
    void PutDirent(uint64_t directory, std::string_view name, const Dirent& dirent);
    void DeleteDirent(uint64_t directory, std::string_view name);
    void PutBlocks(uint64_t inode, uint32_t piece, std::string_view bits);
    void DeleteBlocks(uint64_t inode, uint32_t pieces);  // pieces [0, pieces)
    void PutOrphan(uint64_t inode);
    void DeleteOrphan(uint64_t inode);
    void PutNextInode(uint64_t next);

   private:
    friend class OverlayDb;
    struct Impl;
    std::unique_ptr<Impl> impl_;
  };

  static Result<std::unique_ptr<OverlayDb>> Open(Env& env, const std::string& path, bool create);
  ~OverlayDb();

  Status Write(const Batch& batch);        // atomic; ENOSPC, EIO
  // Called when a write found the disk full, before it is tried once more. Set before the database is used.
  void OnFullDisk(std::function<void()> make_room) { make_room_ = std::move(make_room); }
  // Called before what was written is synced, on the thread and with the locks of whoever syncs; its error is the sync's. Set as
  // the above.
  void BeforeSync(std::function<Status()> prepare) { before_sync_ = std::move(prepare); }
  // A database of its own at `path` (a new directory), with all that was written before.
  Status CopyTo(const std::string& path) const;
  // Everything written before is on the disk when it returns.
  Status Sync() { return SyncTo(sequence()); }
  // The number of the last write; SyncTo(n) does nothing when write n is already on the disk.
  uint64_t sequence() const { return written_.load(); }
  Status SyncTo(uint64_t sequence);

  Result<std::optional<InodeRecord>> Inode(uint64_t inode) const;
  Result<std::optional<Dirent>> Find(uint64_t directory, std::string_view name) const;
  Result<uint64_t> NextInode() const;      // 0: none given out yet
  // Each in key order, until visit returns false.
  Status VisitDirents(uint64_t directory, const std::function<bool(std::string_view name, const Dirent&)>& visit) const;
  Status VisitInodes(const std::function<bool(uint64_t inode, const InodeRecord&)>& visit) const;
  Status VisitOrphans(const std::function<bool(uint64_t inode)>& visit) const;
  Status VisitBlocks(uint64_t inode, const std::function<bool(uint32_t piece, std::string_view bits)>& visit) const;

 private:
  explicit OverlayDb(Env& env);
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::function<void()> make_room_;
  std::function<Status()> before_sync_;
  std::atomic<uint64_t> written_{0}, synced_{0};
  std::mutex sync_mutex_;
};

}  // namespace mirage
