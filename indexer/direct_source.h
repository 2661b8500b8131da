// A raw disk of ext2, ext3, ext4 and FAT filesystems on plain partitions as an import source, at the host's speed and
// without an appliance. The image is parsed by a sandboxed child process (reader_process.h); nothing of it is ever
// mounted.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "indexer/disk_plan.h"
#include "indexer/image_source.h"

namespace mirage {

class DirectSource final : public ImageSource {
 public:
  // Looks at the disk. EOPNOTSUPP: it is not for this reader, and why. EIO: nor is it, because the disk reader failed.
  static Result<std::unique_ptr<DirectSource>> Open(const std::string& path, const std::atomic<bool>* interrupted);
  ~DirectSource() override;

  const DiskPlan& plan() const { return plan_; }
  // EIO: damaged; what was not read in full never passes for a version. EINTR.
  Result<SourceDescription> Read(ImportSink& sink) override;

 private:
  class MountReading;
  DirectSource(int image, uint64_t size, const std::atomic<bool>* interrupted)
      : image_(image), size_(size), interrupted_(interrupted) {}
  const int image_;
  const uint64_t size_;
  const std::atomic<bool>* const interrupted_;
  DiskPlan plan_;
};

}  // namespace mirage
