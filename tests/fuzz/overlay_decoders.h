// What a writable overlay keeps beside a library: the records of inodes, the tables and the log of its database, and what it
// says of itself.
#pragma once

#include <vector>

#include "tests/fuzz/decoders.h"

namespace mirage::testing {

const std::vector<FuzzTarget>& OverlayFuzzTargets();

}  // namespace mirage::testing
