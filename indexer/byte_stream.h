// A file, standard input or another run of bytes, uncompressed on the way: gzip, bzip2, xz and zstd are known by their
// content (libarchive; no other of its filters, some of which run programs).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "store/result.h"

struct archive;

namespace mirage {

class ByteStream {
 public:
  // "-": standard input.
  static Result<std::unique_ptr<ByteStream>> Open(const std::string& path);
  // At most `size` bytes at a time; 0 at the end.
  using Source = std::function<Result<size_t>(char* out, size_t size)>;
  static Result<std::unique_ptr<ByteStream>> Open(Source source);
  ~ByteStream();
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  // At most `size` bytes; 0 at the end. EIO: damaged. E2BIG: it grows beyond what an archive of files does, which is 16
  // GiB and 2000 times what was read.
  Result<size_t> Read(char* out, size_t size);

 private:
  ByteStream(int fd, Source source);
  Status Begin();
  tl::unexpected<Error> Failed(std::string_view what) const;
  static long Fill(struct archive* from, void* self, const void** bytes);

  struct archive* const archive_;
  const int fd_;  // -1: bytes come from source_
  Source source_;
  std::string buffer_;
  Status source_status_;
  uint64_t given_ = 0;
};

}  // namespace mirage
