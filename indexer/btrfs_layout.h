// The subvolumes of a disk's btrfs filesystems, and which of them a system's fstab means. libguestfs's inspection knows
// `subvol=` alone: what fstab mounts by `subvolid=`, or without either from the default subvolume, it takes for the
// device as a whole; and every snapshot of a root it takes for one more operating system.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "indexer/appliance.h"
#include "indexer/linux_system.h"

namespace mirage {

class BtrfsLayout {
 public:
  // `filesystems`: type by device, as ListFilesystems gives them; further devices of a btrfs of several are taken out.
  // Each btrfs is mounted for a moment; one that cannot be has no subvolumes here, and fails when it is to be read.
  static Result<BtrfsLayout> Read(Appliance& appliance, std::map<std::string, std::string>& filesystems);

  bool empty() const { return volumes_.empty(); }

  // The one name of what a device and mount options mean: "/dev/sda2" for the top level of a btrfs (to be mounted with
  // subvolid=5: without, the kernel takes the default subvolume), "btrfsvol:/dev/sda2/home" for a subvolume. A device
  // that is no btrfs is given back.
  std::string Resolve(const std::string& device, std::string_view options) const;

  // Of several roots that libguestfs found on one btrfs, the one that its own fstab mounts at "/": others are snapshots
  // of it. Empty: there is no one such root. The fstab of each is read.
  Result<std::string> ChooseRoot(Appliance& appliance, const std::vector<std::string>& roots) const;

  // Of each btrfs of which something is mounted, what lies below none of its mounts: "the top level, @old, ...". By
  // device. `mounted`: resolved names.
  std::map<std::string, std::string> NotMounted(const std::vector<std::string>& mounted) const;

 private:
  struct Volume {
    std::map<uint64_t, std::string> paths;  // of subvolumes, by id; the top level's is empty
    uint64_t standard = 0;                  // the default subvolume's id
    std::vector<std::string> others;        // further devices of it
  };
  // The btrfs that a device or subvolume lies on, and the path that is named of it; null: it is none.
  const std::pair<const std::string, Volume>* Find(std::string_view device, std::string& path, bool& named) const;

  std::map<std::string, Volume> volumes_;  // by device
};

// The lines of a root's /etc/fstab, of a device that is mounted for a moment.
Result<std::vector<FstabLine>> ReadGuestFstab(Appliance& appliance, const std::string& root);

// The options of the line for a path; empty without one.
std::string_view FstabOptions(const std::vector<FstabLine>& lines, std::string_view path);

}  // namespace mirage
