#include "indexer/byte_stream.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

namespace mirage {
namespace {

constexpr size_t kReadBytes = 256 << 10;
constexpr uint64_t kAlwaysAllowedBytes = uint64_t{16} << 30;
constexpr uint64_t kMaxExpansion = 2000;  // gzip's limit is 1032; zstd has none

std::string Words(struct archive* from) {
  const char* const text = archive_error_string(from);
  std::string words = text == nullptr ? "no reason given" : text;
  std::replace(words.begin(), words.end(), '\n', ' ');
  return words;
}

}  // namespace

ByteStream::ByteStream(int fd, Source source)
    : archive_(archive_read_new()), fd_(fd), source_(std::move(source)) {}

Result<std::unique_ptr<ByteStream>> ByteStream::Open(const std::string& path) {
  const int fd = path == "-" ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0) : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FailErrno(errno, path);
  std::unique_ptr<ByteStream> stream(new ByteStream(fd, {}));
  TRY(stream->Begin());
  return stream;
}

Result<std::unique_ptr<ByteStream>> ByteStream::Open(Source source) {
  std::unique_ptr<ByteStream> stream(new ByteStream(-1, std::move(source)));
  TRY(stream->Begin());
  return stream;
}

Status ByteStream::Begin() {
  if (archive_ == nullptr) return FailErrno(ENOMEM, "cannot uncompress");
  archive_read_support_filter_gzip(archive_);
  archive_read_support_filter_bzip2(archive_);
  archive_read_support_filter_xz(archive_);
  archive_read_support_filter_zstd(archive_);
  archive_read_support_format_raw(archive_);
  archive_read_support_format_empty(archive_);
  int code;
  if (fd_ >= 0) {
    code = archive_read_open_fd(archive_, fd_, kReadBytes);
  } else {
    buffer_.resize(kReadBytes);
    code = archive_read_open(archive_, this, nullptr, Fill, nullptr);
  }
  if (code != ARCHIVE_OK) return Failed("it cannot be read");
  archive_entry* entry = nullptr;
  code = archive_read_next_header(archive_, &entry);
  if (code == ARCHIVE_EOF) return Fail(EINVAL, "it is empty");
  if (code != ARCHIVE_OK) return Failed("it cannot be read");
  return {};
}

ByteStream::~ByteStream() {
  archive_read_free(archive_);
  if (fd_ >= 0) close(fd_);
}

long ByteStream::Fill(struct archive* from, void* self, const void** bytes) {
  auto& stream = *static_cast<ByteStream*>(self);
  *bytes = stream.buffer_.data();
  auto n = stream.source_(stream.buffer_.data(), stream.buffer_.size());
  if (n) return static_cast<long>(*n);
  stream.source_status_ = tl::make_unexpected(std::move(n).error());
  archive_set_error(from, EIO, "its source failed");
  return -1;
}

tl::unexpected<Error> ByteStream::Failed(std::string_view what) const {
  if (!source_status_) return tl::make_unexpected(source_status_.error());
  return Fail(EIO, "{}: {}", what, Words(archive_));
}

Result<size_t> ByteStream::Read(char* out, size_t size) {
  const la_ssize_t n = archive_read_data(archive_, out, size);
  if (n < 0) return Failed("it is damaged");
  given_ += static_cast<uint64_t>(n);
  const auto taken = static_cast<uint64_t>(std::max<la_int64_t>(archive_filter_bytes(archive_, -1), 1));
  if (given_ > kAlwaysAllowedBytes && given_ / taken > kMaxExpansion) {
    return Fail(E2BIG, "its {} bytes grow to more than {}; if that is meant, uncompress it first", taken, given_);
  }
  return static_cast<size_t>(n);
}

}  // namespace mirage
