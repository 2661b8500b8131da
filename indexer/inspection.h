// What a disk holds, as libguestfs sees it: operating system, packages, filesystems and where they are mounted.
#pragma once

#include <cstdint>
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
};

// Finds the one operating system; without one, every filesystem becomes a top-level directory named after its device.
// What is left out is told to the sink. EINVAL: several operating systems, no filesystem, all of it encrypted.
Result<Inspection> InspectDisk(Appliance& appliance, ImportSink& sink);

// Mounts all of it, read-only. What the guest's fstab names and cannot be mounted is left out, but for the root.
Status MountAll(Appliance& appliance, Inspection& inspection, ImportSink& sink);

// The inspection object of an operating system that is mounted (system_description.h). Empty without one.
std::string DescribeSystem(Appliance& appliance, const Inspection& inspection, ImportSink& sink);

}  // namespace mirage
