// Who uses how much of a library: for each of several owners (versions, branches), what it alone reaches and what it shares.
//
// Exact: which chunks and objects, how many, and their bytes as they are. Apportioned: stored bytes; a block's record is divided among
// all its chunks by their length, dead ones too, so the sums of a library's blocks come out right (but for rounding down at each chunk), while a single chunk
// might compress better or worse than its neighbours. Metadata objects are counted as encoded: they lie in RocksDB and in a pack,
// compressed in both, and take about that much together.
//
// Each owner is marked on its own (mark.h), so the time is the sum of what they reach; memory is bounded, scratch on disk
// is some 60 bytes for each chunk and 37 for each object that each owner reaches.
#pragma once

#include <vector>

#include "store/library.h"

namespace mirage {

struct Usage {
  uint64_t objects = 0, object_bytes = 0;
  uint64_t chunks = 0, chunk_bytes = 0;  // before compression
  uint64_t stored_bytes = 0;             // of the chunks, apportioned
};
struct OwnerUsage {
  Usage exclusive;  // no other owner reaches it: what deleting this owner frees, and gc --compact gives back
  Usage shared;
};
struct Accounting {
  std::vector<OwnerUsage> owners;  // as given
  Usage live;                      // what any of them reaches, each once
};
// Each owner is the versions it consists of. What else holds something (refs, overlays, leases) must be among the owners to
// count. ENOENT: a version is not there, or its contents were removed by gc.
Result<Accounting> AccountFor(const Library& library, const Snapshot& snapshot,
                              const std::vector<std::vector<ObjectId>>& owners, const std::string& scratch_directory,
                              size_t memory_bytes = 32 << 20);

}  // namespace mirage
