// The named workloads.
#pragma once

#include <vector>

#include "tests/bench/fixture.h"
#include "tests/bench/measure.h"

namespace mirage::bench {

// Edits of a branch beside kernel overlayfs (branch_workloads.cc).
void AddBranch(const Fixture& fixture, std::vector<Workload>* workloads);

std::vector<Workload> Workloads(const Fixture& fixture);
void AddDiskImports(const Fixture& fixture, std::vector<Workload>* workloads);  // import_workloads.cc

}  // namespace mirage::bench
