// Sorted sequences of records of one width, without duplicates: how a collection keeps sets of ids that do not fit in memory.
// A RecordSorter takes records in any order and gives a RecordRun; an IdSet is a few runs that grow. Records are compared as
// bytes. A run lies in memory when it is small and the scratch has room for it, else in a file of the scratch directory
// that goes with it. Memory: the scratch's limit, and 64 KiB for each run that is being read. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/env.h"
#include "store/object.h"

namespace mirage {

constexpr size_t kIdKeyBytes = 33;  // an object's key: kind, id
std::string IdKey(ObjectKind kind, const ObjectId& id);
ObjectKind KindOfKey(std::string_view key);
ObjectId IdOfKey(std::string_view key);  // of the first 33 bytes

// Where runs are kept, and how much memory they may take together. The directory is the caller's.
struct RecordScratch {
  RecordScratch(Env& e, std::string d, size_t m) : env(e), directory(std::move(d)), memory_bytes(m) {}
  Env& env;
  const std::string directory;
  const size_t memory_bytes;
  size_t used_bytes = 0;      // by runs in memory
  uint64_t files_made = 0;
  uint64_t file_bytes = 0, most_file_bytes = 0;  // on disk now, and at most
};

class RecordRun {
 public:
  ~RecordRun();
  uint64_t count() const { return count_; }
  size_t width() const { return width_; }

  // Reads forward. The run must outlive it.
  class Cursor {
   public:
    explicit Cursor(const RecordRun& run) : run_(run) {}
    // The next record; false behind the last.
    Result<bool> Next();
    // The first record from here on that is not less than `key` (which may be shorter than a record); false if there is none.
    // Stays where it is if that is the current one. Steps over what lies between by galloping.
    Result<bool> Seek(std::string_view key);
    std::string_view record() const { return record_; }

   private:
    Result<std::string_view> At(uint64_t index);
    const RecordRun& run_;
    uint64_t next_ = 0;          // index behind the current record
    bool valid_ = false;
    std::string buffer_, record_;
    uint64_t buffer_at_ = 0, buffer_count_ = 0;
  };

 private:
  friend class RunWriter;
  RecordRun(RecordScratch& scratch, size_t width) : scratch_(scratch), width_(width) {}
  RecordScratch& scratch_;
  size_t width_;
  uint64_t count_ = 0;
  std::string bytes_;            // of a run in memory
  std::string path_;             // of one on disk
  std::unique_ptr<File> file_;
};
using Run = std::shared_ptr<const RecordRun>;

class RecordSorter {
 public:
  // Takes up to `memory_bytes` while it fills.
  RecordSorter(RecordScratch& scratch, size_t width, size_t memory_bytes);
  Status Add(std::string_view record);
  Result<Run> Finish();  // and starts anew

 private:
  Result<Run> SortBuffer();
  RecordScratch& scratch_;
  const size_t width_, limit_;
  std::string buffer_;
  std::vector<Run> runs_;
};

// All records of the runs, each once.
class RunMerge {
 public:
  static Result<std::unique_ptr<RunMerge>> Open(const std::vector<Run>& runs);
  bool valid() const { return !heap_.empty(); }
  std::string_view record() const { return cursors_[heap_.front()]->record(); }
  Status Next();

 private:
  RunMerge() = default;
  bool Later(size_t a, size_t b) const { return cursors_[a]->record() > cursors_[b]->record(); }
  Status Advance();
  std::vector<Run> runs_;
  std::vector<std::unique_ptr<RecordRun::Cursor>> cursors_;
  std::vector<size_t> heap_;
  std::string last_;
};
Result<Run> MergeRuns(RecordScratch& scratch, const std::vector<Run>& runs);

// A set of keys, as runs whose sizes at least halve from one to the next: n keys are rewritten log2(n) times at most.
class IdSet {
 public:
  explicit IdSet(RecordScratch& scratch) : scratch_(scratch) {}
  // Of `keys`, those that are not in the set.
  Result<Run> Missing(const Run& keys) const;
  Status Add(Run keys);
  const std::vector<Run>& runs() const { return runs_; }
  uint64_t count() const;

 private:
  RecordScratch& scratch_;
  std::vector<Run> runs_;
};

}  // namespace mirage
