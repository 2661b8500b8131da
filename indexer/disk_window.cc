#include "indexer/disk_window.h"

#include <unistd.h>

namespace mirage {

Status DiskWindow::ReadAt(uint64_t offset, char* out, size_t length) const {
  if (offset > size_ || length > size_ - offset) return Fail(EIO, "the filesystem speaks of blocks behind its end");
  while (length > 0) {
    const ssize_t n = pread(fd_, out, length, static_cast<off_t>(offset_ + offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FailErrno(errno, "the image cannot be read");
    if (n == 0) return Fail(EIO, "the image ends too early; it is truncated");
    out += n;
    offset += static_cast<uint64_t>(n);
    length -= static_cast<size_t>(n);
  }
  return {};
}

}  // namespace mirage
