// What the names of a source may take of memory: some must be known until its end, and a stranger's archive of a few
// megabytes can hold billions of them.
#pragma once

#include <cstdint>

#include "store/result.h"

namespace mirage {

constexpr uint64_t kNameMemoryBytes = uint64_t{1} << 30;

class NameMemory {
 public:
  explicit NameMemory(uint64_t bytes = kNameMemoryBytes) : bytes_(bytes), left_(bytes) {}
  // E2BIG.
  Status Spend(uint64_t bytes) {
    if (bytes > left_) {
      return Fail(E2BIG,
                  "its names take more than {} bytes of memory; if that is meant, import its files as a directory",
                  bytes_);
    }
    left_ -= bytes;
    return {};
  }

 private:
  uint64_t bytes_, left_;
};

}  // namespace mirage
