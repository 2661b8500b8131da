// Workloads of the read-only mount beyond those every run has: other ways to read, and other filesystems to be beside.
#pragma once

#include <vector>

#include "tests/bench/fixture.h"
#include "tests/bench/measure.h"

namespace mirage::bench {

// `NAME@PEER` is the mount against a peer instead of ext4, for the peers this machine has: squashfs and erofs in the
// kernel, squashfuse_ll. Their images are made when first needed.
std::vector<Workload> MountWorkloads(const Fixture& fixture);

}  // namespace mirage::bench
