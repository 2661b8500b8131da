// What is uncompressed on its way, in a file of the transaction's directory: its zeros take no room, and all else only
// as much as an honest compression can hide.
#pragma once

#include <cstdint>
#include <string_view>

#include "store/result.h"

namespace mirage {

class ScratchFile {
 public:
  static constexpr uint64_t kAlwaysAllowedBytes = uint64_t{1} << 30;
  static constexpr uint64_t kMaxExpansion = 100;

  // `fd`: an empty file, open for writing; borrowed.
  explicit ScratchFile(int fd, uint64_t always_allowed_bytes = kAlwaysAllowedBytes)
      : fd_(fd), always_allowed_bytes_(always_allowed_bytes) {}
  // `source_bytes`: what the bytes so far were made of. E2BIG: they fill more than 1 GiB and 100 times that. ENOSPC,
  // EIO.
  Status Append(std::string_view bytes, uint64_t source_bytes);
  Status Finish();  // gives the file its size

 private:
  const int fd_;
  const uint64_t always_allowed_bytes_;
  uint64_t size_ = 0, written_ = 0;  // with the zeros, and without
};

}  // namespace mirage
