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

Result<std::unique_ptr<ByteStream>> ByteStream::Open(const std::string& path) {
  const int fd = path == "-" ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0) : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FailErrno(errno, path);
  struct archive* const from = archive_read_new();
  if (from == nullptr) {
    close(fd);
    return FailErrno(ENOMEM, path);
  }
  std::unique_ptr<ByteStream> stream(new ByteStream(from, fd));
  archive_read_support_filter_gzip(from);
  archive_read_support_filter_bzip2(from);
  archive_read_support_filter_xz(from);
  archive_read_support_filter_zstd(from);
  archive_read_support_format_raw(from);
  archive_read_support_format_empty(from);
  archive_entry* entry = nullptr;
  if (archive_read_open_fd(from, fd, kReadBytes) != ARCHIVE_OK) return Fail(EIO, "it cannot be read: {}", Words(from));
  const int code = archive_read_next_header(from, &entry);
  if (code == ARCHIVE_EOF) return Fail(EINVAL, "it is empty");
  if (code != ARCHIVE_OK) return Fail(EIO, "it cannot be read: {}", Words(from));
  return stream;
}

ByteStream::~ByteStream() {
  archive_read_free(archive_);
  close(fd_);
}

Result<size_t> ByteStream::Read(char* out, size_t size) {
  const la_ssize_t n = archive_read_data(archive_, out, size);
  if (n < 0) return Fail(EIO, "it is damaged: {}", Words(archive_));
  given_ += static_cast<uint64_t>(n);
  const auto taken = static_cast<uint64_t>(std::max<la_int64_t>(archive_filter_bytes(archive_, -1), 1));
  if (given_ > kAlwaysAllowedBytes && given_ / taken > kMaxExpansion) {
    return Fail(E2BIG, "its {} bytes grow to more than {}; if that is meant, uncompress it first", taken, given_);
  }
  return static_cast<size_t>(n);
}

}  // namespace mirage
