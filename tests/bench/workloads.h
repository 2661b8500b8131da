// The named workloads.
#pragma once

#include <vector>

#include "tests/bench/fixture.h"
#include "tests/bench/measure.h"

namespace mirage::bench {

std::vector<Workload> Workloads(const Fixture& fixture);
void AddDiskImports(const Fixture& fixture, std::vector<Workload>* workloads);  // import_workloads.cc

}  // namespace mirage::bench
