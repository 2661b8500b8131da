#include "store/record_runs.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace mirage {
namespace {

constexpr size_t kReadBytes = 64 << 10;
constexpr size_t kWriteBytes = 256 << 10;
constexpr size_t kMergeWidth = 32;  // runs that are read at once

}  // namespace

std::string IdKey(ObjectKind kind, const ObjectId& id) {
  std::string key(1, static_cast<char>(kind));
  key += id.view();
  return key;
}
ObjectKind KindOfKey(std::string_view key) { return static_cast<ObjectKind>(key[0]); }
ObjectId IdOfKey(std::string_view key) { return *ObjectId::FromBytes(key.substr(1, ObjectId::kSize)); }

// Takes records in ascending order; drops a repeated one.
class RunWriter {
 public:
  RunWriter(RecordScratch& scratch, size_t width)
      : scratch_(scratch), run_(std::shared_ptr<RecordRun>(new RecordRun(scratch, width))) {}
  Status Add(std::string_view record) {
    if (record == last_) return {};
    last_ = record;
    buffer_ += record;
    ++run_->count_;
    if (!run_->file_ && scratch_.used_bytes + buffer_.size() <= scratch_.memory_bytes / 2) return {};
    return buffer_.size() >= kWriteBytes ? WriteOut() : Status();
  }
  Result<Run> Finish() {
    if (run_->file_) {
      if (!buffer_.empty()) TRY(WriteOut());
    } else if (scratch_.used_bytes + buffer_.size() <= scratch_.memory_bytes / 2) {
      run_->bytes_ = std::move(buffer_);
      run_->bytes_.shrink_to_fit();
      scratch_.used_bytes += run_->bytes_.size();
    } else {
      TRY(WriteOut());
    }
    return Run(run_);
  }

 private:
  Status WriteOut() {
    if (!run_->file_) {
      run_->path_ = fmt::format("{}/run-{}", scratch_.directory, scratch_.files_made++);
      ASSIGN_OR_RETURN(run_->file_, scratch_.env.Open(run_->path_, OpenMode::kCreate));
    }
    TRY(run_->file_->WriteAt(written_, buffer_));
    written_ += buffer_.size();
    scratch_.file_bytes += buffer_.size();
    scratch_.most_file_bytes = std::max(scratch_.most_file_bytes, scratch_.file_bytes);
    buffer_.clear();
    return {};
  }
  RecordScratch& scratch_;
  std::shared_ptr<RecordRun> run_;
  std::string buffer_, last_;
  uint64_t written_ = 0;
};

RecordRun::~RecordRun() {
  scratch_.used_bytes -= bytes_.size();
  if (!file_) return;
  scratch_.file_bytes -= count_ * width_;
  file_.reset();
  (void)scratch_.env.Unlink(path_);
}

Result<std::string_view> RecordRun::Cursor::At(uint64_t index) {
  const size_t width = run_.width_;
  if (!run_.file_) return std::string_view(run_.bytes_).substr(index * width, width);
  if (index < buffer_at_ || index >= buffer_at_ + buffer_count_) {
    TRY(run_.file_->ReadAt(index * width, kReadBytes / width * width, &buffer_));
    buffer_at_ = index;
    buffer_count_ = buffer_.size() / width;
    if (buffer_count_ == 0) return Fail(EIO, "{}: shorter than it was written", run_.path_);
  }
  return std::string_view(buffer_).substr((index - buffer_at_) * width, width);
}

Result<bool> RecordRun::Cursor::Next() {
  valid_ = next_ < run_.count_;
  if (!valid_) return false;
  ASSIGN_OR_RETURN(const std::string_view at, At(next_));
  record_ = at;
  ++next_;
  return true;
}

Result<bool> RecordRun::Cursor::Seek(std::string_view key) {
  if (valid_ && record_ >= key) return true;
  // The answer lies in [low, high]: what is before low is less than the key.
  uint64_t low = next_, high = next_, step = 1;
  while (high < run_.count_) {
    ASSIGN_OR_RETURN(const std::string_view at, At(high));
    if (at >= key) break;
    low = high + 1;
    high = std::min(run_.count_, high + step);
    step *= 2;
  }
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    ASSIGN_OR_RETURN(const std::string_view at, At(middle));
    if (at < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  next_ = low;
  return Next();
}

RecordSorter::RecordSorter(RecordScratch& scratch, size_t width, size_t memory_bytes)
    : scratch_(scratch), width_(width), limit_(std::max(memory_bytes, 64 * width)) {}

Status RecordSorter::Add(std::string_view record) {
  buffer_ += record;
  if (buffer_.size() < limit_) return {};
  ASSIGN_OR_RETURN(Run run, SortBuffer());
  runs_.push_back(std::move(run));
  if (runs_.size() < kMergeWidth) return {};
  ASSIGN_OR_RETURN(Run merged, MergeRuns(scratch_, runs_));
  runs_ = {std::move(merged)};
  return {};
}

Result<Run> RecordSorter::SortBuffer() {
  std::vector<uint32_t> order(buffer_.size() / width_);
  std::iota(order.begin(), order.end(), 0U);
  const char* base = buffer_.data();
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return std::memcmp(base + a * width_, base + b * width_, width_) < 0;
  });
  RunWriter writer(scratch_, width_);
  for (const uint32_t i : order) TRY(writer.Add(std::string_view(base + i * width_, width_)));
  buffer_.clear();
  return writer.Finish();
}

Result<Run> RecordSorter::Finish() {
  if (!buffer_.empty() || runs_.empty()) {
    ASSIGN_OR_RETURN(Run run, SortBuffer());
    runs_.push_back(std::move(run));
  }
  std::vector<Run> runs;
  runs.swap(runs_);
  if (runs.size() == 1) return runs.front();
  return MergeRuns(scratch_, runs);
}

Result<std::unique_ptr<RunMerge>> RunMerge::Open(const std::vector<Run>& runs) {
  std::unique_ptr<RunMerge> merge(new RunMerge());
  merge->runs_ = runs;
  for (const Run& run : runs) {
    auto cursor = std::make_unique<RecordRun::Cursor>(*run);
    ASSIGN_OR_RETURN(const bool any, cursor->Next());
    if (!any) continue;
    merge->cursors_.push_back(std::move(cursor));
    merge->heap_.push_back(merge->cursors_.size() - 1);
  }
  std::make_heap(merge->heap_.begin(), merge->heap_.end(), [&](size_t a, size_t b) { return merge->Later(a, b); });
  return merge;
}

Status RunMerge::Advance() {
  const auto later = [this](size_t a, size_t b) { return Later(a, b); };
  std::pop_heap(heap_.begin(), heap_.end(), later);
  ASSIGN_OR_RETURN(const bool more, cursors_[heap_.back()]->Next());
  if (more) {
    std::push_heap(heap_.begin(), heap_.end(), later);
  } else {
    heap_.pop_back();
  }
  return {};
}

Status RunMerge::Next() {
  last_ = record();
  while (valid() && record() == last_) TRY(Advance());
  return {};
}

Result<Run> MergeRuns(RecordScratch& scratch, const std::vector<Run>& runs) {
  ASSIGN_OR_RETURN(const auto merge, RunMerge::Open(runs));
  RunWriter writer(scratch, runs.front()->width());
  for (; merge->valid();) {
    TRY(writer.Add(merge->record()));
    TRY(merge->Next());
  }
  return writer.Finish();
}

Result<Run> IdSet::Missing(const Run& keys) const {
  if (runs_.empty()) return keys;
  std::vector<RecordRun::Cursor> cursors;
  cursors.reserve(runs_.size());
  for (const Run& run : runs_) cursors.emplace_back(*run);
  RunWriter writer(scratch_, keys->width());
  RecordRun::Cursor key(*keys);
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, key.Next());
    if (!more) return writer.Finish();
    bool found = false;
    for (auto cursor = cursors.begin(); !found && cursor != cursors.end(); ++cursor) {
      ASSIGN_OR_RETURN(const bool any, cursor->Seek(key.record()));
      found = any && cursor->record() == key.record();
    }
    if (!found) TRY(writer.Add(key.record()));
  }
}

Status IdSet::Add(Run keys) {
  if (keys->count() == 0) return {};
  runs_.push_back(std::move(keys));
  size_t from = runs_.size() - 1;
  uint64_t count = runs_.back()->count();
  while (from > 0 && runs_[from - 1]->count() < 2 * count) count += runs_[--from]->count();
  if (from + 1 == runs_.size()) return {};
  ASSIGN_OR_RETURN(Run merged, MergeRuns(scratch_, {runs_.begin() + static_cast<ptrdiff_t>(from), runs_.end()}));
  runs_.resize(from);
  runs_.push_back(std::move(merged));
  return {};
}

uint64_t IdSet::count() const {
  uint64_t total = 0;
  for (const Run& run : runs_) total += run->count();
  return total;
}

}  // namespace mirage
