// A part of a disk: what a partition is to its filesystem. Reads never leave it. Borrows the descriptor.
#pragma once

#include <cstdint>

#include "store/result.h"

namespace mirage {

class DiskWindow {
 public:
  DiskWindow(int fd, uint64_t offset, uint64_t size) : fd_(fd), offset_(offset), size_(size) {}
  uint64_t size() const { return size_; }
  int descriptor() const { return fd_; }
  uint64_t offset() const { return offset_; }
  // All of it. EIO: behind the window's end, or the image ends there.
  Status ReadAt(uint64_t offset, char* out, size_t length) const;
  // Bytes that the image's file holds, its holes left out; all of them where its filesystem does not tell. Moves the
  // descriptor's position.
  uint64_t WrittenBytes() const;

 private:
  const int fd_;
  const uint64_t offset_, size_;
};

}  // namespace mirage
