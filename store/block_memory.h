// Where decoded blocks lie. They are of one size, come and go by the thousand, and fresh memory is dear: the kernel clears it and
// maps it page by page, which took an eighth of the time of reading a large file. So it is taken in arenas of huge pages, and
// a place that was left is the next to be used, while it may still be in the processor's cache. Arenas are kept: they are as many
// as blocks were ever alive at once, which the caches bound.
#pragma once

#include <cstddef>
#include <utility>

namespace mirage {

// Bytes without a value; thread-safe as malloc is. The address sanitizer knows their end.
class BlockMemory {
 public:
  BlockMemory() = default;
  explicit BlockMemory(size_t size);  // throws std::bad_alloc
  BlockMemory(BlockMemory&& other) noexcept { *this = std::move(other); }
  BlockMemory& operator=(BlockMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~BlockMemory();

  char* data() { return data_; }
  const char* data() const { return data_; }
  size_t size() const { return size_; }
  size_t taken_bytes() const;  // of memory, no less than size()

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace mirage
