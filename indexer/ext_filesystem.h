// An ext2, ext3 or ext4 filesystem, read through libext2fs, which is not made for hostile filesystems: one a process.
// It checks checksums where the filesystem has them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "indexer/disk_filesystem.h"

namespace mirage {

class ExtFilesystem final : public DiskFilesystem {
 public:
  static Summary Examine(const DiskWindow& window);
  static Result<std::unique_ptr<DiskFilesystem>> Open(const DiskWindow& window);
  ~ExtFilesystem() override;

  Status Walk(const std::vector<std::string>& hidden, ReaderOutput& output) override;
  Status LookUp(const std::string& path, bool follow, uint64_t limit, ReaderOutput& output) override;

 private:
  struct Impl;
  explicit ExtFilesystem(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
