// The bytes of a file that was written in an overlay: a sparse data file above the lower content. A data file's own size,
// mtime and atime are the file's. A bit a 4 KiB block says whether the block is the data file's; a block that is not comes
// from the lower content, as far as that is valid. So the first write to a large file costs the write.
//
// What survives: a bit reaches the database only after fdatasync of the data, so a crash may show older bytes of a block,
// never bytes nobody wrote. Bytes from lower_valid on need no bit. lower_valid is the owner's (InodeRecord); a data file is cut
// before it, on the disk too, and may not grow until lower_valid is durable.
//
// The kernel tells once that it could not write a page, and counts the page as clean from then on. So a failure is kept for
// the next caller who asks for the disk, whoever met it, and new bits wait until their blocks have been written again.
//
// Reads may run at once with each other; all else needs the owner's exclusive lock, but for Sync, which takes it itself.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "mirfs/data_directory.h"
#include "mirfs/overlay_db.h"
#include "store/content_reader.h"

namespace mirage {

constexpr uint64_t kUpperBlockBytes = 4096;
constexpr uint64_t kCopyWholeBytes = 128 << 10;  // lower files up to this are copied whole at the first write
constexpr uint32_t kBlocksInPiece = 1024;        // bits of one database value

struct LowerContent {
  const ContentReader* reader = nullptr;  // null: nothing below
  ObjectId id;
  uint64_t size = 0;
};

class UpperFile {
 public:
  // `may_exist`: look on the disk whether there is a data file (else there is none).
  UpperFile(OverlayDb& db, DataDirectory& data, uint64_t inode, LowerContent lower, uint64_t lower_valid, bool may_exist);
  ~UpperFile();
  UpperFile(const UpperFile&) = delete;
  UpperFile& operator=(const UpperFile&) = delete;

  // Reads the block map. Called once, before anything else.
  Status Load();
  // The data file's size and times; nullopt: there is none.
  Result<std::optional<struct stat>> Stat() const;
  Result<uint64_t> Size() const;           // the file's, data file or not
  uint64_t lower_valid() const { return lower_valid_; }

  Status Read(uint64_t offset, size_t size, std::string* out) const;  // appends; short only at the end
  // The data file, for others to read and write; it must exist. Stays open until Close.
  Result<int> HostFile() const { return Descriptor(); }
  // Others do so: what fstat says is not remembered.
  void SetShared(bool shared);
  // The data file was made by the directory, empty, and is open here; there must be none yet, and nothing below.
  void Adopt(int descriptor);
  // Makes the data file, of the file's present size, if there is none.
  Status Create();
  Status Write(uint64_t offset, std::string_view bytes);              // Create first
  void LowerValidTo(uint64_t size) { lower_valid_ = std::min(lower_valid_, size); }
  Status Resize(uint64_t size);                                       // Create first
  Status Allocate(int mode, uint64_t offset, uint64_t length);        // Create first; fallocate(2) modes
  Status SetTimes(const struct timespec (&times)[2]);                 // atime, mtime; of an existing data file
  // Whether the map has bits that a Sync would put.
  bool dirty() const { return dirty_; }
  // Data to the disk, then new bits to the database (not synced there). Takes `owner` for moments. kAll: the times as well.
  // kBackground: nobody asked; a failure that no other caller was told of stays, and each Sync fails until one is.
  enum class For { kBackground, kData, kAll };
  Status Sync(std::shared_mutex& owner, For whom);
  // The kernel begins to write its pages.
  Status BeginWriting();
  // The data file alone, size and bytes; any thread, whatever locks it has.
  Status SyncData();
  void Close();                            // gives the descriptor back; it is opened again when needed
  static uint32_t PiecesFor(uint64_t lower_size);
  // Visits [0, size) in runs: where the bytes come from. kHole reads as zeros.
  enum class Source { kUpper, kLower, kHole };
  Status VisitRuns(const std::function<Status(uint64_t offset, uint64_t length, Source source)>& visit) const;

 private:
  Result<int> Descriptor() const;
  bool IsUpper(uint64_t block) const;
  // The length of the run at `offset` (< end) that comes from one side.
  uint64_t RunAt(uint64_t offset, uint64_t end, bool* upper) const;
  Status Fill(uint64_t first_block, uint64_t last_block);  // copies blocks that are still lower; sets their bits
  void MarkUpper(uint64_t block);
  Status ReadUpper(uint64_t offset, size_t size, std::string* out) const;
  Status WriteAll(uint64_t offset, std::string_view bytes);
  void Touched() const;
  Status WriteOut(int descriptor, bool times);
  bool PagesLost() const;
  Result<std::vector<unsigned char>> ResidentPages(uint64_t size) const;  // mincore(2)
  // Makes the pages of blocks whose bits the database does not have dirty again; a block whose page is gone is lower again.
  Status RewriteLost();

  OverlayDb& db_;
  DataDirectory& data_;
  const uint64_t inode_;
  const std::string path_;
  const LowerContent lower_;
  uint64_t lower_valid_;
  std::vector<uint8_t> bits_;              // empty: no block is the upper's
  std::vector<bool> dirty_pieces_;
  bool dirty_ = false;
  std::mutex sync_mutex_;                  // orders Syncs; before the owner's lock
  std::mutex write_out_mutex_;             // a failure is remembered before the next sync; before host_mutex_
  mutable std::mutex host_mutex_;          // guards all below; a leaf
  mutable int descriptor_ = -1;
  mutable bool exists_;
  mutable bool looked_;                    // exists_ is known
  mutable std::optional<struct stat> stat_;
  bool shared_ = false;
  std::optional<Error> failed_;            // of a sync, and no caller was told
  bool pages_lost_ = false;                // what was written before may be clean, and not on the disk
};

}  // namespace mirage
