#include "indexer/byte_stream.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace mirage {
namespace {

constexpr size_t kReadBytes = 256 << 10;
constexpr uint64_t kAlwaysAllowedBytes = uint64_t{16} << 30;
constexpr uint64_t kMaxExpansion = 2000;  // gzip's limit is 1032; zstd has none
constexpr size_t kMagicBytes = 6;

// One of libarchive's filters, by a stream's first bytes.
int FilterOf(std::string_view head) {
  using namespace std::string_view_literals;
  if (head.starts_with("\x1f\x8b"sv)) return ARCHIVE_FILTER_GZIP;
  if (head.starts_with("BZh"sv)) return ARCHIVE_FILTER_BZIP2;
  if (head.starts_with("\xfd\x37zXZ\0"sv)) return ARCHIVE_FILTER_XZ;
  if (head.starts_with("\x28\xb5\x2f\xfd"sv)) return ARCHIVE_FILTER_ZSTD;
  return ARCHIVE_FILTER_NONE;
}

std::string Words(struct archive* from) {
  const char* const text = archive_error_string(from);
  std::string words = text == nullptr ? "no reason given" : text;
  std::replace(words.begin(), words.end(), '\n', ' ');
  return words;
}

}  // namespace

ByteStream::ByteStream(int fd, Source source, const std::atomic<bool>* interrupted)
    : archive_(archive_read_new()), fd_(fd), source_(std::move(source)), interrupted_(interrupted) {}

Result<std::unique_ptr<ByteStream>> ByteStream::Open(const std::string& path, const std::atomic<bool>* interrupted) {
  const int fd = path == "-" ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0) : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FailErrno(errno, path);
  std::unique_ptr<ByteStream> stream(new ByteStream(fd, {}, interrupted));
  TRY(stream->Begin());
  return stream;
}

Result<std::unique_ptr<ByteStream>> ByteStream::Open(Source source, const std::atomic<bool>* interrupted) {
  std::unique_ptr<ByteStream> stream(new ByteStream(-1, std::move(source), interrupted));
  TRY(stream->Begin());
  return stream;
}

Status ByteStream::Begin() {
  if (archive_ == nullptr) return FailErrno(ENOMEM, "cannot uncompress");
  buffer_.resize(kReadBytes);
  while (first_bytes_ < kMagicBytes) {
    ASSIGN_OR_RETURN(const size_t n, FillBuffer());
    if (n == 0) break;
    first_bytes_ += n;
  }
  if (first_bytes_ == 0) return Fail(EINVAL, "it is empty");
  const int filter = FilterOf(std::string_view(buffer_).substr(0, first_bytes_));
  compressed_ = filter != ARCHIVE_FILTER_NONE;
  if (compressed_ && archive_read_append_filter(archive_, filter) != ARCHIVE_OK) return Failed("it cannot be read");
  archive_read_support_format_raw(archive_);
  archive_read_support_format_empty(archive_);
  int code = archive_read_open(archive_, this, nullptr, Fill, nullptr);
  if (code != ARCHIVE_OK) return Failed("it cannot be read");
  archive_entry* entry = nullptr;
  code = archive_read_next_header(archive_, &entry);
  // Its filters take a source that fails, and what is not theirs, for the end.
  if (!source_status_) return tl::make_unexpected(source_status_.error());
  if (code == ARCHIVE_EOF) return Fail(EINVAL, "it is empty{}", compressed_ ? ", or damaged" : "");
  if (code != ARCHIVE_OK) return Failed("it cannot be read");
  return {};
}

ByteStream::~ByteStream() {
  archive_read_free(archive_);
  if (fd_ >= 0) close(fd_);
}

// More bytes, behind the first ones.
Result<size_t> ByteStream::FillBuffer() {
  if (interrupted_ != nullptr && interrupted_->load()) return Fail(EINTR, "interrupted; the library is as it was");
  char* const out = buffer_.data() + first_bytes_;
  const size_t room = buffer_.size() - first_bytes_;
  if (fd_ < 0) return source_(out, room);
  for (;;) {
    const ssize_t n = read(fd_, out, room);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno != EINTR) return FailErrno(errno, "it cannot be read");
    if (interrupted_ != nullptr && interrupted_->load()) return Fail(EINTR, "interrupted; the library is as it was");
  }
}

long ByteStream::Fill(struct archive* from, void* self, const void** bytes) {
  auto& stream = *static_cast<ByteStream*>(self);
  *bytes = stream.buffer_.data();
  size_t size = std::exchange(stream.first_bytes_, 0);
  if (size == 0) {
    auto n = stream.FillBuffer();
    if (!n) {
      stream.source_status_ = tl::make_unexpected(std::move(n).error());
      archive_set_error(from, EIO, "its source failed");
      return -1;
    }
    size = *n;
  }
  stream.taken_ += size;
  return static_cast<long>(size);
}

tl::unexpected<Error> ByteStream::Failed(std::string_view what) const {
  if (!source_status_) return tl::make_unexpected(source_status_.error());
  return Fail(EIO, "{}: {}", what, Words(archive_));
}

Result<size_t> ByteStream::Read(char* out, size_t size) {
  const la_ssize_t n = archive_read_data(archive_, out, size);
  if (n < 0 || !source_status_) return Failed("it is damaged");
  if (given_ == 0 && compressed_ && FilterOf({out, static_cast<size_t>(n)}) != ARCHIVE_FILTER_NONE) {
    return Fail(EINVAL, "it is compressed more than once; uncompress it first");
  }
  given_ += static_cast<uint64_t>(n);
  if (given_ > kAlwaysAllowedBytes && given_ / std::max<uint64_t>(taken_, 1) > kMaxExpansion) {
    return Fail(E2BIG, "its {} bytes grow to more than {}; if that is meant, uncompress it first", taken_, given_);
  }
  return static_cast<size_t>(n);
}

}  // namespace mirage
