// A file, standard input or another run of bytes, uncompressed on the way: gzip, bzip2, xz and zstd are known by their
// content (libarchive; no other of its filters, some of which run programs). Once: libarchive by itself goes through 25
// layers of compression, of which a few bytes can be years. Memory: what the format's decoder takes, of xz at most 1 GiB.
#pragma once

#include <atomic>
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
  // "-": standard input. `interrupted`: looked at whenever more bytes are wanted of it (EINTR).
  static Result<std::unique_ptr<ByteStream>> Open(const std::string& path,
                                                  const std::atomic<bool>* interrupted = nullptr);
  // At most `size` bytes at a time; 0 at the end.
  using Source = std::function<Result<size_t>(char* out, size_t size)>;
  static Result<std::unique_ptr<ByteStream>> Open(Source source, const std::atomic<bool>* interrupted = nullptr);
  ~ByteStream();
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  // At most `size` bytes; 0 at the end. EIO: damaged. EINVAL: compressed more than once. E2BIG: it grows beyond what an
  // archive of files does, which is 16 GiB and 2000 times what was read.
  Result<size_t> Read(char* out, size_t size);
  uint64_t taken() const { return taken_; }  // of what is compressed

 private:
  ByteStream(int fd, Source source, const std::atomic<bool>* interrupted);
  Status Begin();
  Result<size_t> FillBuffer();
  tl::unexpected<Error> Failed(std::string_view what) const;
  static long Fill(struct archive* from, void* self, const void** bytes);

  struct archive* const archive_;
  const int fd_;  // -1: bytes come from source_
  Source source_;
  const std::atomic<bool>* const interrupted_;
  std::string buffer_;
  size_t first_bytes_ = 0;  // in the buffer, looked at and not yet handed on
  Status source_status_;
  bool compressed_ = false;
  uint64_t taken_ = 0, given_ = 0;
};

}  // namespace mirage
