// A file or standard input as a run of bytes, uncompressed on the way: gzip, bzip2, xz and zstd are known by their
// content (libarchive; no other of its filters, some of which run programs).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "store/result.h"

struct archive;

namespace mirage {

class ByteStream {
 public:
  // "-": standard input.
  static Result<std::unique_ptr<ByteStream>> Open(const std::string& path);
  ~ByteStream();
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  // At most `size` bytes; 0 at the end. EIO: damaged. E2BIG: it grows beyond what an archive of files does, which is 16
  // GiB and 2000 times what was read.
  Result<size_t> Read(char* out, size_t size);

 private:
  ByteStream(struct archive* from, int fd) : archive_(from), fd_(fd) {}
  struct archive* const archive_;
  const int fd_;
  uint64_t given_ = 0;
};

}  // namespace mirage
