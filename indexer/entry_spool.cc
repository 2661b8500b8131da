#include "indexer/entry_spool.h"

#include <algorithm>
#include <cstring>

namespace mirage {
namespace {

constexpr size_t kReadBytes = 256 << 10;
constexpr size_t kWriteBytes = 1 << 20;

template <typename T>
void Put(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
template <typename T>
void Take(std::string_view& in, T& value) {
  std::memcpy(&value, in.data(), sizeof value);
  in.remove_prefix(sizeof value);
}

// Scratch bytes of this process alone: host order, no versions.
std::string Pack(const Entry& entry) {
  std::string out;
  out.reserve(120 + entry.target.size());
  Put(out, entry.type);
  Put(out, entry.mode);
  Put(out, entry.uid);
  Put(out, entry.gid);
  Put(out, entry.mtime_sec);
  Put(out, entry.mtime_nsec);
  Put(out, entry.size);
  Put(out, entry.rdev_major);
  Put(out, entry.rdev_minor);
  Put(out, entry.id);
  Put(out, entry.xattrs);
  return out += entry.target;
}

Entry Unpack(std::string_view in) {
  Entry entry;
  Take(in, entry.type);
  Take(in, entry.mode);
  Take(in, entry.uid);
  Take(in, entry.gid);
  Take(in, entry.mtime_sec);
  Take(in, entry.mtime_nsec);
  Take(in, entry.size);
  Take(in, entry.rdev_major);
  Take(in, entry.rdev_minor);
  Take(in, entry.id);
  Take(in, entry.xattrs);
  entry.target = in;
  return entry;
}

}  // namespace

// Reads a run from its start; `record` is the one it stands at.
class EntrySpool::RunReader {
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
    if (buffer_.size() - start_ < kHeader) return Fail(EIO, "scratch file of entries: it ends too early");
    std::string_view header(buffer_.data() + start_, kHeader);
    uint32_t key_bytes, value_bytes;
    Take(header, key_bytes);
    Take(header, value_bytes);
    Take(header, record.ticket);
    TRY(Fill(kHeader + key_bytes + value_bytes));
    if (buffer_.size() - start_ < kHeader + key_bytes + value_bytes) {
      return Fail(EIO, "scratch file of entries: it ends too early");
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

EntrySpool::EntrySpool(Env& env, std::string directory, size_t memory_bytes)
    : env_(env), directory_(std::move(directory)), memory_limit_(memory_bytes) {}

void EntrySpool::Sort(std::vector<Record>& records) {
  std::sort(records.begin(), records.end(), [](const Record& a, const Record& b) {
    const int order = a.key.compare(b.key);  // char_traits<char> compares as unsigned bytes
    return order != 0 ? order < 0 : a.ticket < b.ticket;
  });
}

Status EntrySpool::Add(uint64_t ticket, std::string_view path, const Entry& entry) {
  std::string key(path);
  std::replace(key.begin(), key.end(), '/', '\0');
  std::string value = Pack(entry);
  std::lock_guard lock(mutex_);
  memory_bytes_ += key.capacity() + value.capacity() + sizeof(Record);
  records_.push_back({std::move(key), ticket, std::move(value)});
  return memory_bytes_ > memory_limit_ ? Spill() : Status{};
}

Status EntrySpool::Spill() {
  Sort(records_);
  const std::string path = fmt::format("{}/entries.{}", directory_, runs_.size());
  ASSIGN_OR_RETURN(auto file, env_.Open(path, OpenMode::kCreate));
  std::string out;
  uint64_t offset = 0;
  for (const Record& record : records_) {
    Put(out, static_cast<uint32_t>(record.key.size()));
    Put(out, static_cast<uint32_t>(record.value.size()));
    Put(out, record.ticket);
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
  memory_bytes_ = 0;
  return {};
}

Status EntrySpool::ForEach(const Visit& visit) {
  std::lock_guard lock(mutex_);
  Sort(records_);
  std::vector<std::unique_ptr<RunReader>> readers;
  for (const std::string& run : runs_) {
    ASSIGN_OR_RETURN(auto reader, RunReader::Open(env_, run));
    ASSIGN_OR_RETURN(const bool any, reader->Next());
    if (any) readers.push_back(std::move(reader));
  }
  // A heap with the least record on top; the records in memory are one more run.
  size_t next_in_memory = 0;
  const auto later = [](const std::unique_ptr<RunReader>& a, const std::unique_ptr<RunReader>& b) {
    const int order = a->record.key.compare(b->record.key);
    return order != 0 ? order > 0 : a->record.ticket > b->record.ticket;
  };
  std::make_heap(readers.begin(), readers.end(), later);
  const auto from_memory = [&] {
    if (next_in_memory == records_.size()) return false;
    if (readers.empty()) return true;
    const Record& a = records_[next_in_memory];
    const Record& b = readers.front()->record;
    const int order = a.key.compare(b.key);
    return order != 0 ? order < 0 : a.ticket < b.ticket;
  };
  std::string path;
  Record pending;  // visited once the next record has another path
  bool has_pending = false;
  const auto visit_pending = [&]() -> Status {
    path = pending.key;
    std::replace(path.begin(), path.end(), '\0', '/');
    return visit(path, Unpack(pending.value));
  };
  const auto offer = [&](const Record& record) -> Status {
    if (has_pending && pending.key != record.key) TRY(visit_pending());
    pending = record;
    has_pending = true;
    return {};
  };
  while (!readers.empty() || next_in_memory < records_.size()) {
    if (from_memory()) {
      TRY(offer(records_[next_in_memory++]));
      continue;
    }
    std::pop_heap(readers.begin(), readers.end(), later);
    TRY(offer(readers.back()->record));
    ASSIGN_OR_RETURN(const bool more, readers.back()->Next());
    if (more) {
      std::push_heap(readers.begin(), readers.end(), later);
    } else {
      readers.pop_back();
    }
  }
  return has_pending ? visit_pending() : Status{};
}

}  // namespace mirage
