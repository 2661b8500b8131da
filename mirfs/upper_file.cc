#include "mirfs/upper_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace mirage {
namespace {

// The file names its lower content: that it is not there is damage, and no "no such file".
Status ReadLower(const LowerContent& lower, uint64_t offset, size_t length, std::string* out) {
  Status status = lower.reader->Read(lower.id, lower.size, offset, length, out);
  if (!status && status.error().code == ENOENT) status.error().code = EIO;
  return status;
}

constexpr uint64_t kFillPieceBytes = 1 << 20;
constexpr size_t kPieceBytes = kBlocksInPiece / 8;

uint64_t BlocksFor(uint64_t bytes) { return (bytes + kUpperBlockBytes - 1) / kUpperBlockBytes; }

}  // namespace

uint32_t UpperFile::PiecesFor(uint64_t lower_size) {
  return static_cast<uint32_t>((BlocksFor(lower_size) + kBlocksInPiece - 1) / kBlocksInPiece);
}

UpperFile::UpperFile(OverlayDb& db, DataDirectory& data, uint64_t inode, LowerContent lower, uint64_t lower_valid,
                     bool may_exist)
    : db_(db), data_(data), inode_(inode), path_(data.PathOf(inode)), lower_(lower), lower_valid_(lower_valid), exists_(false),
      looked_(!may_exist) {}

UpperFile::~UpperFile() { Close(); }

Status UpperFile::Load() {
  if (lower_valid_ == 0) return {};
  const uint32_t pieces = PiecesFor(lower_.size);
  return db_.VisitBlocks(inode_, [&](uint32_t piece, std::string_view bits) {
    if (piece < pieces && bits.size() == kPieceBytes) {
      bits_.resize(pieces * kPieceBytes);
      dirty_pieces_.resize(pieces);
      std::memcpy(bits_.data() + piece * kPieceBytes, bits.data(), kPieceBytes);
    }
    return true;
  });
}

Result<std::optional<struct stat>> UpperFile::Stat() const {
  const std::lock_guard lock(host_mutex_);
  if (looked_ && !exists_) return std::optional<struct stat>();
  if (stat_) return stat_;
  struct stat found {};
  const int failed = descriptor_ >= 0 ? ::fstat(descriptor_, &found) : ::lstat(path_.c_str(), &found);
  if (failed && errno != ENOENT) return FailErrno(errno, "stat " + path_);
  looked_ = true;
  exists_ = !failed;
  if (!exists_) return std::optional<struct stat>();
  if (!shared_) stat_ = found;
  return std::optional<struct stat>(found);
}

void UpperFile::SetShared(bool shared) {
  const std::lock_guard lock(host_mutex_);
  shared_ = shared;
  stat_.reset();
}

Result<uint64_t> UpperFile::Size() const {
  ASSIGN_OR_RETURN(const auto found, Stat());
  return found ? static_cast<uint64_t>(found->st_size) : lower_valid_;
}

Result<int> UpperFile::Descriptor() const {
  const std::lock_guard lock(host_mutex_);
  if (descriptor_ < 0) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC | O_NOATIME | O_NOFOLLOW);
    if (descriptor_ < 0 && errno == EPERM) descriptor_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor_ < 0) return FailErrno(errno, "open " + path_);
  }
  return descriptor_;
}

void UpperFile::Touched() const {
  const std::lock_guard lock(host_mutex_);
  stat_.reset();
}

void UpperFile::Close() {
  const std::lock_guard lock(host_mutex_);
  if (descriptor_ < 0) return;
  struct stat found {};
  if (!stat_ && ::fstat(descriptor_, &found) == 0) stat_ = found;
  ::close(descriptor_);
  descriptor_ = -1;
}

void UpperFile::Adopt(int descriptor) {
  const std::lock_guard lock(host_mutex_);
  descriptor_ = descriptor;
  looked_ = exists_ = true;
}

Status UpperFile::Create() {
  ASSIGN_OR_RETURN(const auto found, Stat());
  if (found) return {};
  const std::lock_guard lock(host_mutex_);
  ASSIGN_OR_RETURN(const int made, data_.Make(inode_));
  if (lower_valid_ > 0 && ::ftruncate(made, static_cast<off_t>(lower_valid_)) != 0) {
    const int error = errno;
    ::close(made);
    data_.Remove(inode_);
    return FailErrno(error, "create " + path_);
  }
  descriptor_ = made;
  looked_ = exists_ = true;
  stat_.reset();
  return {};
}

bool UpperFile::IsUpper(uint64_t block) const {
  return block < bits_.size() * 8 && (bits_[block / 8] >> (block % 8) & 1);
}

void UpperFile::MarkUpper(uint64_t block) {
  if (bits_.empty()) {
    const uint32_t pieces = PiecesFor(lower_.size);
    bits_.resize(pieces * kPieceBytes);
    dirty_pieces_.resize(pieces);
  }
  bits_[block / 8] = static_cast<uint8_t>(bits_[block / 8] | 1U << (block % 8));
  dirty_pieces_[block / kBlocksInPiece] = true;
  dirty_ = true;
}

uint64_t UpperFile::RunAt(uint64_t offset, uint64_t end, bool* upper) const {
  const auto side = [&](uint64_t at) { return at >= lower_valid_ || IsUpper(at / kUpperBlockBytes); };
  *upper = side(offset);
  uint64_t at = offset;
  while (at < end && side(at) == *upper) {
    if (at >= lower_valid_) {
      at = end;
    } else {
      at = std::min((at / kUpperBlockBytes + 1) * kUpperBlockBytes, lower_valid_);
    }
  }
  return std::min(at, end) - offset;
}

Status UpperFile::ReadUpper(uint64_t offset, size_t size, std::string* out) const {
  ASSIGN_OR_RETURN(const int descriptor, Descriptor());
  const size_t before = out->size();
  out->resize(before + size);
  size_t done = 0;
  while (done < size) {
    const ssize_t got =
        ::pread(descriptor, out->data() + before + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno(errno, "read " + path_);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  out->resize(before + done);
  return {};
}

Status UpperFile::Read(uint64_t offset, size_t size, std::string* out) const {
  ASSIGN_OR_RETURN(const auto host, Stat());
  const uint64_t file_size = host ? static_cast<uint64_t>(host->st_size) : lower_valid_;
  if (offset >= file_size) return {};
  const uint64_t end = offset + std::min<uint64_t>(size, file_size - offset);
  if (!host) return ReadLower(lower_, offset, end - offset, out);
  while (offset < end) {
    bool upper = false;
    const uint64_t run = RunAt(offset, end, &upper);
    const size_t before = out->size();
    if (upper) {
      TRY(ReadUpper(offset, run, out));
    } else {
      TRY(ReadLower(lower_, offset, run, out));
    }
    if (out->size() - before != run) return Fail(EIO, "read {}: short at {}", path_, offset);
    offset += run;
  }
  return {};
}

Status UpperFile::WriteAll(uint64_t offset, std::string_view bytes) {
  ASSIGN_OR_RETURN(const int descriptor, Descriptor());
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return FailErrno(errno, "write " + path_);
    bytes.remove_prefix(static_cast<size_t>(put));
    offset += static_cast<uint64_t>(put);
  }
  return {};
}

Status UpperFile::Fill(uint64_t first_block, uint64_t last_block) {
  const uint64_t end = std::min((last_block + 1) * kUpperBlockBytes, lower_valid_);
  uint64_t at = first_block * kUpperBlockBytes;
  std::string bytes;
  while (at < end) {
    bool upper = false;
    const uint64_t run = std::min(RunAt(at, end, &upper), kFillPieceBytes);
    if (!upper) {
      bytes.clear();
      TRY(ReadLower(lower_, at, run, &bytes));
      if (bytes.size() != run) return Fail(EIO, "copy up {}: the lower content is short", path_);
      TRY(WriteAll(at, bytes));
      for (uint64_t block = at / kUpperBlockBytes; block * kUpperBlockBytes < at + run; ++block) MarkUpper(block);
    }
    at += run;
  }
  return {};
}

Status UpperFile::Write(uint64_t offset, std::string_view bytes) {
  if (bytes.empty()) return {};
  Touched();
  const uint64_t end = offset + bytes.size();
  const bool over_lower = offset < lower_valid_;
  if (lower_valid_ > 0 && lower_valid_ <= kCopyWholeBytes) {
    TRY(Fill(0, (lower_valid_ - 1) / kUpperBlockBytes));
  } else if (over_lower) {
    // Only blocks that are not overwritten as far as they are valid need their old bytes.
    const uint64_t first = offset / kUpperBlockBytes;
    const uint64_t last = (std::min(end, lower_valid_) - 1) / kUpperBlockBytes;
    if (offset % kUpperBlockBytes != 0 && !IsUpper(first)) TRY(Fill(first, first));
    if (end < std::min((last + 1) * kUpperBlockBytes, lower_valid_) && !IsUpper(last)) TRY(Fill(last, last));
  }
  TRY(WriteAll(offset, bytes));
  if (over_lower) {
    const uint64_t last = (std::min(end, lower_valid_) - 1) / kUpperBlockBytes;
    for (uint64_t block = offset / kUpperBlockBytes; block <= last; ++block) {
      if (!IsUpper(block)) MarkUpper(block);
    }
  }
  return {};
}

Status UpperFile::Resize(uint64_t size) {
  ASSIGN_OR_RETURN(const int descriptor, Descriptor());
  Touched();
  if (::ftruncate(descriptor, static_cast<off_t>(size)) != 0) return FailErrno(errno, "truncate " + path_);
  return {};
}

Status UpperFile::Allocate(int mode, uint64_t offset, uint64_t length) {
  if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
    return Fail(EOPNOTSUPP, "fallocate {}: mode {:#x}", path_, mode);
  }
  ASSIGN_OR_RETURN(const int descriptor, Descriptor());
  Touched();
  const bool zeroes = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
  const bool over_lower = zeroes && length > 0 && offset < lower_valid_;
  const uint64_t first = offset / kUpperBlockBytes;
  const uint64_t end = std::min(offset + length, lower_valid_);
  const uint64_t last = over_lower ? (end - 1) / kUpperBlockBytes : 0;
  if (over_lower) {
    if (offset % kUpperBlockBytes != 0 && !IsUpper(first)) TRY(Fill(first, first));
    if (end < std::min((last + 1) * kUpperBlockBytes, lower_valid_) && !IsUpper(last)) TRY(Fill(last, last));
  }
  if (::fallocate(descriptor, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0) {
    return FailErrno(errno, "fallocate " + path_);
  }
  if (over_lower) {
    for (uint64_t block = first; block <= last; ++block) {
      if (!IsUpper(block)) MarkUpper(block);
    }
  }
  return {};
}

Status UpperFile::SetTimes(const struct timespec (&times)[2]) {
  ASSIGN_OR_RETURN(const int descriptor, Descriptor());
  Touched();
  if (::futimens(descriptor, times) != 0) return FailErrno(errno, "set times of " + path_);
  return {};
}

Status UpperFile::WriteOut(int descriptor, bool times) {
  const std::lock_guard one_sync(write_out_mutex_);
  if ((times ? ::fsync(descriptor) : ::fdatasync(descriptor)) == 0) return {};
  auto failed = FailErrno(errno, "sync " + path_);
  const std::lock_guard lock(host_mutex_);
  failed_ = failed.value();
  pages_lost_ = true;
  return failed;
}

bool UpperFile::PagesLost() const {
  const std::lock_guard lock(host_mutex_);
  return pages_lost_;
}

Result<std::vector<unsigned char>> UpperFile::ResidentPages(uint64_t size) const {
  const auto page = static_cast<uint64_t>(::getpagesize());
  std::vector<unsigned char> resident((size + page - 1) / page);
  if (size == 0) return resident;
  ASSIGN_OR_RETURN(const int descriptor, Descriptor());
  void* map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  if (map == MAP_FAILED) return FailErrno(errno, "map " + path_);
  const int failed = ::mincore(map, size, resident.data()) != 0 ? errno : 0;
  ::munmap(map, size);
  if (failed) return FailErrno(failed, "map " + path_);
  return resident;
}

Status UpperFile::RewriteLost() {
  if (dirty_) {
    std::vector<uint8_t> stored(bits_.size());
    TRY(db_.VisitBlocks(inode_, [&](uint32_t piece, std::string_view bits) {
      if (piece < dirty_pieces_.size() && bits.size() == kPieceBytes) {
        std::memcpy(stored.data() + piece * kPieceBytes, bits.data(), kPieceBytes);
      }
      return true;
    }));
    ASSIGN_OR_RETURN(const auto host, Stat());
    const auto size = static_cast<uint64_t>(host->st_size);
    ASSIGN_OR_RETURN(const auto resident, ResidentPages(size));
    std::string bytes;
    for (uint64_t block = 0; block * kUpperBlockBytes < std::min(size, lower_valid_); ++block) {
      if (!dirty_pieces_[block / kBlocksInPiece] || !IsUpper(block) || (stored[block / 8] >> (block % 8) & 1)) continue;
      const uint64_t at = block * kUpperBlockBytes;
      if (resident[at / static_cast<uint64_t>(::getpagesize())] & 1) {
        bytes.clear();
        TRY(ReadUpper(at, std::min(kUpperBlockBytes, size - at), &bytes));
        TRY(WriteAll(at, bytes));
      } else {
        bits_[block / 8] = static_cast<uint8_t>(bits_[block / 8] & ~(1U << (block % 8)));
      }
    }
    TRY(SetTimes({host->st_atim, host->st_mtim}));
  }
  const std::lock_guard lock(host_mutex_);
  pages_lost_ = false;
  return {};
}

Status UpperFile::Sync(std::shared_mutex& owner, For whom) {
  const std::lock_guard ordered(sync_mutex_);
  std::vector<std::pair<uint32_t, std::string>> pieces;
  int descriptor = -1;
  {
    const std::unique_lock lock(owner);
    ASSIGN_OR_RETURN(const auto host, Stat());
    if (!host) return {};
    if (PagesLost()) TRY(RewriteLost());
    ASSIGN_OR_RETURN(const int current, Descriptor());
    descriptor = ::fcntl(current, F_DUPFD_CLOEXEC, 0);  // it may be closed meanwhile
    if (descriptor < 0) return FailErrno(errno, "sync " + path_);
    for (uint32_t piece = 0; piece < dirty_pieces_.size(); ++piece) {
      if (!dirty_pieces_[piece]) continue;
      pieces.emplace_back(piece, std::string(reinterpret_cast<const char*>(bits_.data()) + piece * kPieceBytes, kPieceBytes));
      dirty_pieces_[piece] = false;
    }
    dirty_ = false;
  }
  auto synced = [&]() -> Status {
    TRY(WriteOut(descriptor, whom == For::kAll));
    TRY(data_.SyncNames());
    if (pieces.empty()) return {};
    if (PagesLost()) return Fail(EIO, "sync {}: failed for another", path_);
    OverlayDb::Batch batch;
    for (const auto& [piece, bits] : pieces) batch.PutBlocks(inode_, piece, bits);
    return db_.Write(batch);
  }();
  ::close(descriptor);
  if (!synced) {
    const std::unique_lock lock(owner);
    for (const auto& [piece, bits] : pieces) dirty_pieces_[piece] = dirty_ = true;
  }
  const std::lock_guard lock(host_mutex_);
  if (!failed_) return synced;
  const Error failed = *failed_;
  if (whom != For::kBackground) failed_.reset();
  return tl::make_unexpected(failed);
}

Status UpperFile::BeginWriting() {
  ASSIGN_OR_RETURN(const auto host, Stat());
  if (!host) return {};
  ASSIGN_OR_RETURN(const int descriptor, Descriptor());
  (void)::sync_file_range(descriptor, 0, 0, SYNC_FILE_RANGE_WRITE);
  return {};
}

Status UpperFile::SyncData() {
  int descriptor = -1;
  {
    const std::lock_guard lock(host_mutex_);
    descriptor = descriptor_ >= 0 ? ::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0)
                                  : ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  }
  if (descriptor < 0) return errno == ENOENT ? Status() : FailErrno(errno, "sync " + path_);
  auto synced = WriteOut(descriptor, false);
  ::close(descriptor);
  TRY(synced);
  return data_.SyncNames();
}

Status UpperFile::VisitRuns(const std::function<Status(uint64_t, uint64_t, Source)>& visit) const {
  ASSIGN_OR_RETURN(const auto host, Stat());
  const uint64_t size = host ? static_cast<uint64_t>(host->st_size) : lower_valid_;
  uint64_t at = 0;
  while (at < size) {
    bool upper = false;
    uint64_t run = host ? RunAt(at, size, &upper) : size;
    const uint64_t run_end = at + run;
    if (upper) {
      ASSIGN_OR_RETURN(const int descriptor, Descriptor());
      while (at < run_end) {
        const off_t data = ::lseek(descriptor, static_cast<off_t>(at), SEEK_DATA);
        if (data < 0 && errno != ENXIO) return FailErrno(errno, "seek in " + path_);
        const uint64_t data_at = data < 0 ? run_end : std::min(static_cast<uint64_t>(data), run_end);
        if (data_at > at) TRY(visit(at, data_at - at, Source::kHole));
        if (data_at == run_end) break;
        const off_t hole = ::lseek(descriptor, data, SEEK_HOLE);
        if (hole < 0) return FailErrno(errno, "seek in " + path_);
        at = std::min(static_cast<uint64_t>(hole), run_end);
        TRY(visit(data_at, at - data_at, Source::kUpper));
      }
    } else {
      Status result;
      TRY(lower_.reader->VisitSegments(lower_.id, lower_.size, at, [&](uint64_t offset, uint64_t length, bool hole) {
        const uint64_t from = std::max(offset, at);
        const uint64_t to = std::min(offset + length, run_end);
        if (from < to) result = visit(from, to - from, hole ? Source::kHole : Source::kLower);
        return result.has_value() && to < run_end;
      }));
      TRY(result);
    }
    at = run_end;
  }
  return {};
}

}  // namespace mirage
