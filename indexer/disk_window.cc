#include "indexer/disk_window.h"

#include <unistd.h>

#include <algorithm>

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

uint64_t DiskWindow::WrittenBytes() const {
  const auto end = static_cast<off_t>(offset_ + size_);
  uint64_t written = 0;
  for (auto at = static_cast<off_t>(offset_); at < end;) {
    const off_t data = lseek(fd_, at, SEEK_DATA);
    if (data < 0 && errno != ENXIO) return size_;
    if (data < 0 || data >= end) break;
    const off_t hole = lseek(fd_, data, SEEK_HOLE);
    if (hole <= data) return size_;
    written += static_cast<uint64_t>(std::min(hole, end) - data);
    at = hole;
  }
  return written;
}

}  // namespace mirage
