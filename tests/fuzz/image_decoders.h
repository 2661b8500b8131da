// What an import takes of a stranger's image in its own process: archives, containers' documents, OVF descriptors, headers
// of disks, and what the sandboxed reader and the appliance say.
#pragma once

#include <vector>

#include "tests/fuzz/decoders.h"

namespace mirage::testing {

const std::vector<FuzzTarget>& ImageFuzzTargets();

}  // namespace mirage::testing
