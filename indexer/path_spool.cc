#include "indexer/path_spool.h"

#include <algorithm>
#include <cstring>

#include "indexer/scratch_bytes.h"

namespace mirage {
namespace {

constexpr size_t kReadBytes = 256 << 10;
constexpr size_t kWriteBytes = 1 << 20;

}  // namespace

std::string CanonicalKey(std::string_view path) {
  std::string key(path);
  std::replace(key.begin(), key.end(), '/', '\0');
  return key;
}

// Reads a run from its start; `record` is the one it stands at.
class PathSpool::RunReader {
 public:
  static Result<std::unique_ptr<RunReader>> Open(Env& env, const std::string& path) {
    auto reader = std::make_unique<RunReader>();
    ASSIGN_OR_RETURN(reader->file_, env.Open(path, OpenMode::kRead));
    return reader;
  }
  // False at the end.
  Result<bool> Next() {
    constexpr size_t kHeader = 2 * sizeof(uint32_t) + sizeof(uint64_t);
    TRY(Fill(kHeader));
    if (buffer_.size() == start_) return false;
    if (buffer_.size() - start_ < kHeader) return Fail(EIO, "scratch file of paths: it ends too early");
    std::string_view header(buffer_.data() + start_, kHeader);
    uint32_t key_bytes, value_bytes;
    TakeScratch(header, key_bytes);
    TakeScratch(header, value_bytes);
    TakeScratch(header, record.ticket);
    TRY(Fill(kHeader + key_bytes + value_bytes));
    if (buffer_.size() - start_ < kHeader + key_bytes + value_bytes) {
      return Fail(EIO, "scratch file of paths: it ends too early");
    }
    record.key.assign(buffer_, start_ + kHeader, key_bytes);
    record.value.assign(buffer_, start_ + kHeader + key_bytes, value_bytes);
    start_ += kHeader + key_bytes + value_bytes;
    return true;
  }
  Record record;

 private:
  Status Fill(size_t need) {
    while (buffer_.size() - start_ < need) {
      buffer_.erase(0, start_);
      start_ = 0;
      std::string more;
      TRY(file_->ReadAt(offset_, std::max(kReadBytes, need), &more));
      if (more.empty()) return {};
      offset_ += more.size();
      buffer_ += more;
    }
    return {};
  }
  std::unique_ptr<File> file_;
  std::string buffer_;
  size_t start_ = 0;
  uint64_t offset_ = 0;
};

PathSpool::PathSpool(Env& env, std::string directory, std::string name, size_t memory_bytes)
    : env_(env), directory_(std::move(directory)), name_(std::move(name)), memory_limit_(memory_bytes) {}

bool PathSpool::Before(const Record& a, const Record& b) {
  const int order = a.key.compare(b.key);  // char_traits<char> compares as unsigned bytes
  return order != 0 ? order < 0 : a.ticket < b.ticket;
}

// Numbers are sorted, not records, which would be moved about; and only what is new since the last time.
void PathSpool::Sort() {
  const auto before = [this](uint32_t a, uint32_t b) { return Before(records_[a], records_[b]); };
  const auto sorted = static_cast<std::ptrdiff_t>(order_.size());
  for (auto i = static_cast<uint32_t>(sorted); i < records_.size(); ++i) order_.push_back(i);
  std::sort(order_.begin() + sorted, order_.end(), before);
  std::inplace_merge(order_.begin(), order_.begin() + sorted, order_.end(), before);
}

Status PathSpool::Add(uint64_t ticket, std::string_view path, std::string value) {
  std::string key = CanonicalKey(path);
  std::lock_guard lock(mutex_);
  memory_bytes_ += key.capacity() + value.capacity() + sizeof(Record) + sizeof(order_[0]);
  records_.push_back({std::move(key), ticket, std::move(value)});
  return memory_bytes_ > memory_limit_ ? Spill() : Status{};
}

Status PathSpool::Spill() {
  Sort();
  const std::string path = fmt::format("{}/{}.{}", directory_, name_, runs_.size());
  ASSIGN_OR_RETURN(auto file, env_.Open(path, OpenMode::kCreate));
  std::string out;
  uint64_t offset = 0;
  for (const uint32_t number : order_) {
    const Record& record = records_[number];
    PutScratch(out, static_cast<uint32_t>(record.key.size()));
    PutScratch(out, static_cast<uint32_t>(record.value.size()));
    PutScratch(out, record.ticket);
    out += record.key;
    out += record.value;
    if (out.size() >= kWriteBytes) {
      TRY(file->WriteAt(offset, out));
      offset += out.size();
      out.clear();
    }
  }
  TRY(file->WriteAt(offset, out));
  runs_.push_back(path);
  records_.clear();
  order_.clear();
  memory_bytes_ = 0;
  return {};
}

PathSpool::Cursor::Cursor(PathSpool& spool) : spool_(spool) {}
PathSpool::Cursor::~Cursor() = default;

bool PathSpool::Cursor::Later(const std::unique_ptr<RunReader>& a, const std::unique_ptr<RunReader>& b) {
  return Before(b->record, a->record);
}

Status PathSpool::Cursor::Open() {
  open_ = true;
  {
    const std::lock_guard lock(spool_.mutex_);
    spool_.Sort();
  }
  for (const std::string& run : spool_.runs_) {
    ASSIGN_OR_RETURN(auto reader, RunReader::Open(spool_.env_, run));
    ASSIGN_OR_RETURN(const bool any, reader->Next());
    if (any) readers_.push_back(std::move(reader));
  }
  std::make_heap(readers_.begin(), readers_.end(), Later);
  ASSIGN_OR_RETURN(more_, Pull(&pending_));
  return {};
}

Result<bool> PathSpool::Cursor::Pull(Record* record) {
  const auto& order = spool_.order_;
  const Record* const in_memory = next_in_memory_ < order.size() ? &spool_.records_[order[next_in_memory_]] : nullptr;
  if (in_memory == nullptr && readers_.empty()) return false;
  if (in_memory != nullptr && (readers_.empty() || Before(*in_memory, readers_.front()->record))) {
    *record = *in_memory;
    ++next_in_memory_;
    return true;
  }
  std::pop_heap(readers_.begin(), readers_.end(), Later);
  *record = readers_.back()->record;
  ASSIGN_OR_RETURN(const bool more, readers_.back()->Next());
  if (more) {
    std::push_heap(readers_.begin(), readers_.end(), Later);
  } else {
    readers_.pop_back();
  }
  return true;
}

Result<bool> PathSpool::Cursor::Next() {
  if (!open_) TRY(Open());
  if (!more_) return false;
  // The last of those with one path holds.
  do {
    std::swap(current_, pending_);
    ASSIGN_OR_RETURN(more_, Pull(&pending_));
  } while (more_ && pending_.key == current_.key);
  path_ = current_.key;
  std::replace(path_.begin(), path_.end(), '\0', '/');
  return true;
}

}  // namespace mirage
