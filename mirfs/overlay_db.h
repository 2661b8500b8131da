// An overlay's database: typed keys, atomic batches, and the one place that knows what of it has reached the disk.
//
//   'I' inode               -> InodeRecord (inode_record.h)
//   'D' directory, name     -> Dirent: a child, or a whiteout of the lower name
//   'B' inode, piece        -> 128 bytes: which of 1024 4-KiB blocks of the file are the upper file's (upper_file.h)
//   'O' inode               -> an orphan: unlinked, but still open when this was written
//   'S'                     -> the next upper inode number that was never given out
// Numbers in keys are big-endian, in values little-endian.
//
// They are rows of a RowStore (row_store.h).
//
// A batch survives this process when Write returns; Sync makes it survive a power cut. Batches survive as a prefix of the order of
// their writes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "mirfs/inode_record.h"
#include "mirfs/row_store.h"
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
    void PutInode(uint64_t inode, const InodeRecord& record);
    void DeleteInode(uint64_t inode);
    void PutDirent(uint64_t directory, std::string_view name, const Dirent& dirent);
    void DeleteDirent(uint64_t directory, std::string_view name);
    void PutBlocks(uint64_t inode, uint32_t piece, std::string_view bits);
    void PutOrphan(uint64_t inode);
    void DeleteOrphan(uint64_t inode);
    void PutNextInode(uint64_t next);

   private:
    friend class OverlayDb;
    RowStore::Batch rows_;
  };

  // In the directory `path`, with `create` a new one. Starts no thread.
  static Result<std::unique_ptr<OverlayDb>> Open(Env& env, const std::string& path, bool create,
                                                 const RowStore::Limits& limits = {});

  // These are as the store says.
  Status Write(Batch& batch) { return rows_->Write(batch.rows_); }
  void OnFullDisk(std::function<void()> make_room) { rows_->OnFullDisk(std::move(make_room)); }
  void BeforeSync(std::function<Status()> prepare) { rows_->BeforeSync(std::move(prepare)); }
  Status CopyTo(const std::string& path) const { return rows_->CopyTo(path); }
  uint64_t sequence() const { return rows_->sequence(); }
  Status SyncTo(uint64_t sequence) { return rows_->SyncTo(sequence); }
  // Everything written before is on the disk when it returns.
  Status Sync() { return SyncTo(sequence()); }

  Result<std::optional<InodeRecord>> Inode(uint64_t inode) const;
  Result<std::optional<Dirent>> Find(uint64_t directory, std::string_view name) const;
  Result<uint64_t> NextInode() const;      // 0: none given out yet
  // Adds to the batch that all of the inode's blocks go. What of them cannot be read stays, and is nobody's.
  void DeleteBlocks(uint64_t inode, Batch* batch) const;
  // Each in key order, until visit returns false.
  Status VisitDirents(uint64_t directory, const std::function<bool(std::string_view name, const Dirent&)>& visit) const;
  Status VisitInodes(const std::function<bool(uint64_t inode, const InodeRecord&)>& visit) const;
  Status VisitOrphans(const std::function<bool(uint64_t inode)>& visit) const;
  Status VisitBlocks(uint64_t inode, const std::function<bool(uint32_t piece, std::string_view bits)>& visit) const;

 private:
  explicit OverlayDb(std::unique_ptr<RowStore> rows) : rows_(std::move(rows)) {}
  std::unique_ptr<RowStore> rows_;
};

}  // namespace mirage
