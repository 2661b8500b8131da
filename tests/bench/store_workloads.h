// What is measured of the store alone: how long a read and a lookup take, how much memory an import needs, and whether a
// large library costs more than a small one.
#pragma once

#include <string>

#include "tests/bench/measure.h"
#include "tests/bench/versions.h"

namespace mirage::bench {

// Microseconds of a random 4 KiB read of the log of version 2, and of looking up a path of depth 8: with nothing in the
// store's caches (but all in the kernel's), and with everything in them. Prints a line each.
void MeasureReading(const std::string& mirage, const Versions& versions, const std::string& work, bool json);

// Peak resident memory of importing a sparse file, a dense one of random bytes, and a tree of many small files.
void MeasureMemory(const std::string& mirage, const std::string& work, int sparse_gib, int dense_gib, int files, bool json);

// A library of `versions` x 50,000 files beside one of ten: the same commands, in alternating pairs.
void MeasureScale(const std::string& mirage, const std::string& work, int versions, int pairs, bool json);

}  // namespace mirage::bench
