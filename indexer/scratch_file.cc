#include "indexer/scratch_file.h"

#include <unistd.h>

#include <algorithm>

namespace mirage {
namespace {

constexpr size_t kBlockBytes = 4096;

}  // namespace

Status ScratchFile::Append(std::string_view bytes, uint64_t source_bytes) {
  while (!bytes.empty()) {
    // Up to the next block that is other than these are: zeros, or not.
    size_t run = 0;
    bool zeros = false;
    while (run < bytes.size()) {
      const size_t block = std::min<size_t>(kBlockBytes - (size_ + run) % kBlockBytes, bytes.size() - run);
      const bool empty = bytes.substr(run, block).find_first_not_of('\0') == std::string_view::npos;
      if (run == 0) zeros = empty;
      if (empty != zeros) break;
      run += block;
    }
    for (size_t done = zeros ? run : 0; done < run;) {
      const ssize_t n = pwrite(fd_, bytes.data() + done, run - done, static_cast<off_t>(size_ + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FailErrno(errno, "cannot write what is uncompressed to the library's staging directory");
      done += static_cast<size_t>(n);
    }
    if (!zeros) written_ += run;
    size_ += run;
    bytes.remove_prefix(run);
  }
  if (written_ > always_allowed_bytes_ && written_ / std::max<uint64_t>(source_bytes, 1) >= kMaxExpansion) {
    return Fail(E2BIG, "its {} bytes grow to more than {}; if that is meant, uncompress it first", source_bytes,
                written_);
  }
  return {};
}

Status ScratchFile::Finish() {
  if (ftruncate(fd_, static_cast<off_t>(size_)) != 0) {
    return FailErrno(errno, "cannot write what is uncompressed to the library's staging directory");
  }
  return {};
}

}  // namespace mirage
