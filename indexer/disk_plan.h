// What the direct reader will read of a raw disk, and what is known of the system on it, without an appliance: the
// partitions as the disk reader's survey tells them, mounted as the system's own fstab says.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "indexer/reader_protocol.h"
#include "indexer/system_description.h"

namespace mirage {

struct DirectMount {
  std::string device, filesystem, path;  // "/dev/sda1", "ext4", "/boot"; without a system "/sda1"
  PartitionRecord partition;
};

struct DiskPlan {
  bool has_system = false;
  SystemDescription system;         // without mountpoints
  std::vector<DirectMount> mounts;  // a mount point before those below it
  std::vector<std::string> omissions;
  // What the appliance would do better: --reader auto takes it then, --reader direct says this as an omission.
  std::vector<std::string> doubts;
};

struct DiskPlanOptions {
  int image = -1;  // a raw disk, borrowed
  uint64_t size = 0;
  const std::atomic<bool>* interrupted = nullptr;
};
// EOPNOTSUPP: a disk that this reader does not read, and why: other filesystems, LVM, MD, LUKS, a journal to recover,
// several systems, or one
// that is not Linux. EIO: the disk reader failed on it. EINTR.
Result<DiskPlan> PlanDisk(const DiskPlanOptions& options);

}  // namespace mirage
