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
  struct Volume {
    std::map<uint64_t, std::string> paths;  // of subvolumes, by id; the top level's (5) is empty
    uint64_t standard = 0;                  // the default subvolume's id
    std::vector<std::string> others;        // further devices of it
    // libguestfs's word for its device in the names of subvolumes. It gives disks the names of their order, whatever
    // the appliance's kernel called them, but (1.48) not in those names: where the kernel found the disks in another
    // order, "btrfsvol:/dev/sdb2/home" is a subvolume of /dev/sda2.
    std::vector<std::string> aliases;
  };
  BtrfsLayout() = default;
  explicit BtrfsLayout(std::map<std::string, Volume> volumes) : volumes_(std::move(volumes)) {}

  // `filesystems`: type by device, as ListFilesystems gives them; subvolumes, and further devices of a btrfs of
  // several, are taken out. Each btrfs is mounted for a moment; one that cannot be has no subvolumes here, and fails
  // when it is to be read.
  static Result<BtrfsLayout> Read(Appliance& appliance, std::map<std::string, std::string>& filesystems);

  bool empty() const { return volumes_.empty(); }
  // Every subvolume and top level, by the names that Resolve gives.
  std::vector<std::string> Names() const;

  // What libguestfs calls a root, by the name under which it takes it.
  std::string Root(const std::string& root) const;

  // The one name of what libguestfs's device and mount options mean: "/dev/sda2" for the top level of a btrfs (to be
  // mounted with subvolid=5: without, the kernel takes the default subvolume), "btrfsvol:/dev/sda2/home" for a
  // subvolume. A device that is no btrfs is given back.
  std::string Resolve(const std::string& device, std::string_view options) const;

  // Of several roots that libguestfs found on one btrfs, the one that its own fstab mounts at "/", by its Root name:
  // others are snapshots of it. Empty: there is no one such root. The fstab of each is read.
  Result<std::string> ChooseRoot(Appliance& appliance, const std::vector<std::string>& roots) const;

  // Of each btrfs of which something is mounted, what lies below none of its mounts: "the top level, @old, ...". By
  // device. `mounted`: resolved names.
  std::map<std::string, std::string> NotMounted(const std::vector<std::string>& mounted) const;

 private:
  struct Place {
    const std::string* device = nullptr;  // null: of no btrfs
    const Volume* volume = nullptr;
    std::string path;    // of the subvolume that is named
    bool named = false;  // one is
  };
  // `foreign`: a name that libguestfs gave, not one of ours.
  Place Find(std::string_view name, bool foreign) const;

  std::map<std::string, Volume> volumes_;  // by device
};

// The lines of a root's /etc/fstab, of a device that is mounted for a moment.
Result<std::vector<FstabLine>> ReadGuestFstab(Appliance& appliance, const std::string& root);

// The options of the line for a path; empty without one.
std::string_view FstabOptions(const std::vector<FstabLine>& lines, std::string_view path);

}  // namespace mirage
