// What a disk holds, as libguestfs sees it: operating system, packages, filesystems and where they are mounted.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "indexer/appliance.h"
#include "indexer/image_source.h"
#include "store/object.h"

namespace mirage {

// One filesystem to be read, and where its files lie.
struct MountPlan {
  std::string device;      // "/dev/sda1", or libguestfs's name of a subvolume
  std::string filesystem;  // "ext4"
  std::string path;        // "/boot"; in the appliance and in the version
};

struct Inspection {
  std::string root;               // the operating system's root device; empty: there is none
  std::vector<MountPlan> mounts;  // in the order in which they are to be mounted
  std::vector<Disk> disks;
  std::set<std::string> devices;  // of all filesystems
  std::set<std::string> opened;   // encrypted, and opened by a key
};

// Finds the one operating system; without one, every filesystem becomes a top-level directory named after its device.
// `opened`: encrypted devices whose contents are seen. What is left out is told to the sink. What is encrypted is an error, or with `skip_unreadable` an omission
// (kUnreadable). EINVAL: several operating systems, no filesystem, all of it encrypted.
Result<Inspection> InspectDisk(Appliance& appliance, const std::set<std::string>& opened, bool skip_unreadable,
                               ImportSink& sink);

// Mounts all of it, read-only, with the options of IMPORT.md's table. A device of the guest's fstab that is not there is
// an omission; a filesystem that cannot be mounted an error, or with `skip_unreadable` an omission (kUnreadable), but for
// the root.
Status MountAll(Appliance& appliance, Inspection& inspection, bool skip_unreadable, ImportSink& sink);

// The inspection object of an operating system that is mounted (system_description.h). Empty without one.
std::string DescribeSystem(Appliance& appliance, const Inspection& inspection, ImportSink& sink);

}  // namespace mirage
