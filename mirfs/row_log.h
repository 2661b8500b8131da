// The log of a row store: every batch is appended to it, as one record, before it is answered. What is in the log and not yet in the
// tables is read from it when the store is opened.
//
//   log.<n>   a segment, n eight digits, ascending. One is as long as what is kept in memory of it (row_store.h)
//   segment:  "mirage row log 1", u64 salt, u64 sequence of its first record, u64 checksum of these 32 bytes; records
//   record:   u64 checksum of what follows, u64 sequence, u32 length of the payload, payload
//
// Numbers are little-endian. Checksums are XXH3, seeded with the segment's salt (its header's with 0): bytes that a file held
// before, or that somebody wrote into a name, are no record. Sequences ascend by one, over segments too, so that the log holds
// a prefix of what was written whatever of it a power cut kept: it ends before the first record that is not whole or not next.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "store/env.h"
#include "store/result.h"

namespace mirage {

// Replay comes first, alone. Then Append, EndSegment and segment_bytes are for one thread at a time, Parts for it too, and the
// others for any.
class RowLog {
 public:
  static constexpr size_t kRecordHeaderBytes = 20;
  static constexpr size_t kMaxSegmentBytes = size_t{1} << 30;

  RowLog(Env& env, std::string directory) : env_(env), directory_(std::move(directory)) {}

  // Visits every record behind `applied`, in order, and removes, durably, the segments that hold none.
  Status Replay(uint64_t applied, const std::function<Status(uint64_t sequence, std::string_view payload)>& visit);
  // `record` is kRecordHeaderBytes that are filled in here, and the payload. After an error the log holds what it held. EFBIG:
  // longer than a segment may be.
  Status Append(uint64_t sequence, std::string* record);
  // The next record begins a new segment.
  void EndSegment() { open_.reset(); }
  size_t segment_bytes() const { return open_ ? open_->bytes : 0; }  // of the one that is appended to
  // Removes the segments that hold nothing behind `sequence`. One that cannot be removed is read in vain by the next Replay.
  void DropThrough(uint64_t sequence);
  // What was appended before is on the disk when it returns. What a failed sync lost no later one brings back, so its error
  // stays as long as the segment: until what it holds is in a table.
  Status Sync();
  // What the log holds now, and its copy in another, existing, directory: of what is not dropped meanwhile.
  struct Part;
  std::vector<Part> Parts() const;
  Status Copy(const std::vector<Part>& parts, const std::string& directory) const;

 private:
  struct Segment {
    uint64_t number = 0, salt = 0, first = 0;
    std::string path;
    std::unique_ptr<File> file;
    uint64_t bytes = 0;                 // of whole records, and the header
    std::atomic<uint64_t> last{0};      // sequence of its last record
    uint64_t synced = 0;                // the same of what is on the disk; guarded by sync_mutex_
    bool name_synced = false;           // likewise
    Status sync_error;                  // likewise
  };
  using SegmentRef = std::shared_ptr<Segment>;

  static std::string PathOf(const std::string& directory, uint64_t number);
  Result<SegmentRef> Create(uint64_t first);
  Status Read(Segment& segment, uint64_t* last, bool* whole,
              const std::function<Status(uint64_t sequence, std::string_view payload)>& visit) const;

  Env& env_;
  const std::string directory_;
  mutable std::mutex mutex_;            // guards segments_
  std::vector<SegmentRef> segments_;    // ascending
  SegmentRef open_;                     // the last of them, or none; not guarded
  uint64_t next_number_ = 1;
  std::mutex sync_mutex_;
};

struct RowLog::Part {
  SegmentRef segment;
  uint64_t bytes = 0;
};

}  // namespace mirage
