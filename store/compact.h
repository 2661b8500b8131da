// Rewrites the live part of some packs into new ones. Nothing of the library changes: the new packs lie in the caller's
// staging directory, and he puts them in place of the old ones when he condemns those (gc.h).
//
// Chunks keep the order in which they lie, which is that of their trees, so that neighbours stay neighbours. Memory: one
// block a processor, and the scratch's.
#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "store/library.h"
#include "store/mark.h"
#include "store/pack_series.h"

namespace mirage {

struct PackFile {
  PackNumber number;
  uint64_t bytes;
};
// How much of a pack is in use.
struct PackUse {
  PackFile file;
  bool chunks = false;  // else metadata
  uint64_t rows = 0, live_rows = 0;
  int level = 0;        // it was rewritten at; 0: never
};

constexpr uint64_t kSmallPackBytes = 16 << 20;       // smaller ones are put together, when there are two
constexpr uint64_t kCompactionBatchBytes = 1 << 30;  // of old packs: what a compaction takes on the disk before it gives back
// Those worth rewriting: less than half live, small, or never rewritten at `level`. Of these, at most `batch_bytes` (but one at least), those with
// the least live first: they give most for the room they take.
std::vector<PackUse> PacksToRewrite(const std::vector<PackUse>& packs, int level, uint64_t batch_bytes = kCompactionBatchBytes);

// What was rewritten. The runs are the caller's scratch's.
struct Compaction {
  std::set<PackNumber> packs;  // the old ones
  uint64_t old_bytes = 0, new_bytes = 0;
  int level = 0;
  Run chunks;                  // key (33 bytes), new location (20)
  Run objects;                 // keys of the metadata objects that lie in new packs
  std::unique_ptr<PackSeries> chunk_packs, object_packs;  // sealed
};
// EIO: one of the packs is damaged.
Result<Compaction> RewritePacks(const Library& library, const Snapshot& snapshot, const Marker& marker,
                                RecordScratch& scratch, const std::vector<PackUse>& packs, int level,
                                const std::atomic<bool>* interrupted);

// The location in a record of Compaction::chunks.
Result<Location> MovedLocation(std::string_view record);

}  // namespace mirage
