#include "mirfs/row_log.h"

#include <sys/random.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr std::string_view kMagic = "mirage row log 1";
constexpr std::string_view kPrefix = "log.";
constexpr size_t kSegmentHeaderBytes = 40;
constexpr size_t kCopyBytes = 1 << 20;

uint64_t Checksum(std::string_view bytes, uint64_t seed) { return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed); }

std::string EncodeHeader(uint64_t salt, uint64_t first) {
  std::string header(kMagic);
  Put<uint64_t>(&header, salt);
  Put<uint64_t>(&header, first);
  Put<uint64_t>(&header, Checksum(header, 0));
  return header;
}

std::optional<uint64_t> NumberOf(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return number;
}

}  // namespace

std::string RowLog::PathOf(const std::string& directory, uint64_t number) {
  return fmt::format("{}/{}{:08}", directory, kPrefix, number);
}

// `last`: what was visited until now; raised as records are. `whole`: all of the file was read.
Status RowLog::Read(Segment& segment, uint64_t* last, bool* whole,
                    const std::function<Status(uint64_t, std::string_view)>& visit) const {
  *whole = false;
  ASSIGN_OR_RETURN(const uint64_t size, segment.file->Size());
  if (size > kMaxSegmentBytes) return Fail(EIO, "overlay: {}: too long for a log", segment.path);
  std::string bytes;
  TRY(segment.file->ReadAt(0, static_cast<size_t>(size), &bytes));
  Decoder in(bytes);
  const std::string_view magic = in.Bytes(kMagic.size());
  segment.salt = in.Take<uint64_t>();
  segment.first = in.Take<uint64_t>();
  const auto header_checksum = in.Take<uint64_t>();
  if (!in.ok() || magic != kMagic || header_checksum != Checksum(std::string_view(bytes).substr(0, kSegmentHeaderBytes - 8), 0)) {
    return {};
  }
  if (segment.first == 0 || segment.first > *last + 1) return {};  // what came before is lost
  segment.bytes = kSegmentHeaderBytes;
  segment.last = segment.first - 1;
  while (in.left() > 0) {
    const auto checksum = in.Take<uint64_t>();
    const auto sequence = in.Take<uint64_t>();
    const auto length = in.Take<uint32_t>();
    const std::string_view payload = in.Bytes(length);
    if (!in.ok() || sequence != segment.last + 1) return {};
    const auto covered = std::string_view(bytes).substr(segment.bytes + 8, kRecordHeaderBytes - 8 + length);
    if (checksum != Checksum(covered, segment.salt)) return {};
    if (sequence > *last) {
      TRY(visit(sequence, payload));
      *last = sequence;
    }
    segment.last = sequence;
    segment.bytes += kRecordHeaderBytes + length;
  }
  *whole = true;
  return {};
}

Status RowLog::Replay(uint64_t applied, const std::function<Status(uint64_t, std::string_view)>& visit) {
  ASSIGN_OR_RETURN(const auto names, env_.List(directory_));
  std::vector<uint64_t> numbers;
  for (const std::string& name : names) {
    if (const auto number = NumberOf(name)) numbers.push_back(*number);
  }
  std::sort(numbers.begin(), numbers.end());
  uint64_t last = applied;
  bool removed = false;
  for (const uint64_t number : numbers) {
    next_number_ = number + 1;
    auto segment = std::make_shared<Segment>();
    segment->number = number;
    segment->path = PathOf(directory_, number);
    ASSIGN_OR_RETURN(segment->file, env_.Open(segment->path, OpenMode::kReadWrite));
    bool whole = false;
    TRY(Read(*segment, &last, &whole, visit));
    const bool needed = segment->bytes > 0 && segment->first <= segment->last && segment->last > applied;
    if (!needed) {
      TRY(env_.Unlink(segment->path));
      removed = true;
      continue;
    }
    if (!whole) TRY(segment->file->Truncate(segment->bytes));
    segments_.push_back(std::move(segment));
  }
  // One that comes back would stand in the way of its successor.
  if (removed) TRY(env_.SyncDirectory(directory_));
  return {};
}

Result<RowLog::SegmentRef> RowLog::Create(uint64_t first) {
  auto segment = std::make_shared<Segment>();
  segment->number = next_number_++;
  segment->path = PathOf(directory_, segment->number);
  segment->first = first;
  segment->last = first - 1;
  segment->synced = first - 1;
  if (::getrandom(&segment->salt, sizeof segment->salt, 0) != sizeof segment->salt) return FailErrno(errno, "getrandom");
  const std::string header = EncodeHeader(segment->salt, first);
  ASSIGN_OR_RETURN(segment->file, env_.Open(segment->path, OpenMode::kCreate));
  if (auto written = segment->file->WriteAt(0, header); !written) {
    static_cast<void>(env_.Unlink(segment->path));
    return tl::make_unexpected(std::move(written).error());
  }
  segment->bytes = header.size();
  return segment;
}

Status RowLog::Append(uint64_t sequence, std::string* record) {
  const std::string_view payload = std::string_view(*record).substr(kRecordHeaderBytes);
  if (record->size() > kMaxSegmentBytes - kSegmentHeaderBytes - segment_bytes()) {
    return Fail(EFBIG, "overlay: {}: a record of {} bytes", directory_, record->size());
  }
  std::string header;
  Put<uint64_t>(&header, 0);
  Put<uint64_t>(&header, sequence);
  Put<uint32_t>(&header, static_cast<uint32_t>(payload.size()));
  std::copy(header.begin(), header.end(), record->begin());
  if (!open_) {
    ASSIGN_OR_RETURN(auto segment, Create(sequence));
    const std::lock_guard lock(mutex_);
    segments_.push_back(segment);
    open_ = std::move(segment);
  }
  const uint64_t checksum = Checksum(std::string_view(*record).substr(8), open_->salt);
  std::memcpy(record->data(), &checksum, sizeof checksum);
  if (auto written = open_->file->WriteAt(open_->bytes, *record); !written) {
    // Where it cannot be cut off, the segment ends before it, and the next one goes on.
    if (!open_->file->Truncate(open_->bytes)) EndSegment();
    return written;
  }
  open_->bytes += record->size();
  open_->last = sequence;
  return {};
}

void RowLog::DropThrough(uint64_t sequence) {
  std::vector<SegmentRef> dropped;
  {
    const std::lock_guard lock(mutex_);
    const auto kept = std::find_if(segments_.begin(), segments_.end(), [&](const SegmentRef& segment) {
      return segment->first > sequence || segment->last > sequence;  // one without a record yet has the former
    });
    dropped.assign(segments_.begin(), kept);
    segments_.erase(segments_.begin(), kept);
  }
  for (const SegmentRef& segment : dropped) static_cast<void>(env_.Unlink(segment->path));
}

Status RowLog::Sync() {
  const std::lock_guard one_sync(sync_mutex_);
  std::vector<SegmentRef> due;
  {
    const std::lock_guard lock(mutex_);
    std::copy_if(segments_.begin(), segments_.end(), std::back_inserter(due),
                 [](const SegmentRef& segment) { return segment->synced < segment->last; });
  }
  bool new_names = false;
  for (const SegmentRef& segment : due) {
    const uint64_t last = segment->last;
    if (segment->sync_error) segment->sync_error = segment->file->Sync();
    TRY(segment->sync_error);
    segment->synced = last;
    new_names |= !segment->name_synced;
  }
  if (new_names) {
    const auto synced = env_.SyncDirectory(directory_);
    for (const SegmentRef& segment : due) {
      segment->name_synced = true;
      if (!synced) segment->sync_error = synced;
    }
    return synced;
  }
  return {};
}

std::vector<RowLog::Part> RowLog::Parts() const {
  const std::lock_guard lock(mutex_);
  std::vector<Part> parts;
  for (const SegmentRef& segment : segments_) parts.push_back({segment, segment->bytes});
  return parts;
}

Status RowLog::Copy(const std::vector<Part>& parts, const std::string& directory) const {
  for (const Part& part : parts) {
    const std::string path = PathOf(directory, part.segment->number);
    ASSIGN_OR_RETURN(const auto file, env_.Open(path, OpenMode::kCreate));
    std::string bytes;
    for (uint64_t at = 0; at < part.bytes; at += bytes.size()) {
      TRY(part.segment->file->ReadAt(at, static_cast<size_t>(std::min<uint64_t>(kCopyBytes, part.bytes - at)), &bytes));
      if (bytes.empty()) return Fail(EIO, "overlay: {}: shorter than it was", part.segment->path);
      TRY(file->WriteAt(at, bytes));
    }
  }
  return {};
}

}  // namespace mirage
