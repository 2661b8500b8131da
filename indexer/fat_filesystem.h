// A FAT12, FAT16 or FAT32 filesystem with long names, as Linux's vfat shows it with the fixed options of IMPORT.md: all
// of root, 0755, a file that is read-only 0555, times as UTC, the root directory of 1970. As vfat does, the first FAT
// alone is read, and it is FAT32 if the 16-bit length of the FAT is zero, whatever the number of clusters says.
//
// Files are whole or an error: each has as many clusters as its size needs, neither more nor fewer, and no cluster
// belongs to two files or directories, so that a walk ends after as many clusters as there are. A filesystem that was
// not unmounted cleanly is not read: there a chain is often longer than its file, which only writers may know to be
// harmless.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "indexer/disk_filesystem.h"

namespace mirage {

class FatFilesystem final : public DiskFilesystem {
 public:
  static Summary Examine(const DiskWindow& window);
  static Result<std::unique_ptr<DiskFilesystem>> Open(const DiskWindow& window);
  ~FatFilesystem() override;

  Status Walk(const std::vector<std::string>& hidden, ReaderOutput& output) override;
  // Paths are compared without regard to the case of ASCII letters.
  Status LookUp(const std::string& path, bool follow, uint64_t limit, ReaderOutput& output) override;

 private:
  struct Impl;
  explicit FatFilesystem(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
