// The named workloads.
#pragma once

#include <vector>

#include "tests/bench/fixture.h"
#include "tests/bench/measure.h"

namespace mirage::bench {

std::vector<Workload> Workloads(const Fixture& fixture);

}  // namespace mirage::bench
