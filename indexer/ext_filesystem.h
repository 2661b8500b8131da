// An ext2, ext3 or ext4 filesystem, read through libext2fs as the kernel would show it on a read-only mount. Runs in
// the disk reader's sandbox alone: libext2fs is not made for hostile filesystems. It checks checksums where the
// filesystem has them; what is damaged is an error, never a shorter tree.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "indexer/disk_window.h"
#include "indexer/reader_output.h"

namespace mirage {

class ExtFilesystem {
 public:
  struct Summary {
    std::string obstacle;  // why it is not for this reader: a journal to recover, an unknown feature; empty: it is
    uint64_t used_bytes = 0;
    int64_t made_sec = INT64_MIN;
  };
  // From the superblock alone.
  static Summary Examine(const DiskWindow& window);

  // EOPNOTSUPP: an obstacle. EIO: damaged.
  static Result<std::unique_ptr<ExtFilesystem>> Open(const DiskWindow& window);
  ~ExtFilesystem();

  // Sends every entry, a directory before what is in it. `hidden`: directories in which other filesystems are mounted;
  // they come, what is in them does not.
  Status Walk(const std::vector<std::string>& hidden, ReaderOutput& output);

  // Sends what `path` is. With `follow` symbolic links are followed, and of a regular file come at most `limit` bytes;
  // a longer one is cut.
  Status LookUp(const std::string& path, bool follow, uint64_t limit, ReaderOutput& output);

 private:
  struct Impl;
  explicit ExtFilesystem(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
