// A filesystem of a disk, as the kernel would show it on a read-only mount. Runs in the disk reader's sandbox alone.
// What is damaged is an error, never a shorter tree.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "indexer/disk_window.h"
#include "indexer/reader_output.h"

namespace mirage {

class DiskFilesystem {
 public:
  struct Summary {
    std::string obstacle;     // why it is not for this reader: a journal to recover, an unknown feature; empty: it is
    uint64_t used_bytes = 0;  // 0: not known
    int64_t made_sec = INT64_MIN;
  };
  // From the superblock alone. `type` is libblkid's, of a kind that is read (KindOf).
  static Summary Examine(std::string_view type, const DiskWindow& window);

  // EOPNOTSUPP: an obstacle. EIO: damaged. EINVAL: no filesystem of that type is read. The window must outlive it.
  static Result<std::unique_ptr<DiskFilesystem>> Open(std::string_view type, const DiskWindow& window);
  virtual ~DiskFilesystem() = default;

  // Sends every entry, a directory before what is in it. `hidden`: directories in which other filesystems are mounted;
  // they come, what is in them does not. May be called once.
  virtual Status Walk(const std::vector<std::string>& hidden, ReaderOutput& output) = 0;

  // Sends what `path` is. With `follow` symbolic links are followed, and of a regular file come at most `limit` bytes;
  // a longer one is cut.
  virtual Status LookUp(const std::string& path, bool follow, uint64_t limit, ReaderOutput& output) = 0;
};

}  // namespace mirage
