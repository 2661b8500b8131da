// What is live: everything that some versions reach, exactly, in bounded memory. Breadth first over sorted runs of ids
// (record_runs.h): the ids a level names are sorted, those already marked are taken away by a merge, the rest is marked and read
// in the order of RocksDB's keys. A shared subtree is read once, whoever names it, so the cost follows what is in the
// library and not the number of its versions.
//
// Costs: 33 bytes of scratch a live id (33 MB a million chunks), twice that while a run is merged, on disk beyond the
// scratch's memory; memory is the scratch's limit, whatever the library's size. A Bloom filter would take 1.2 MB a million
// at 1 % and then keep one dead chunk of a hundred for ever; a hash set, 48 MB of memory.
//
// Of the roots' ancestors the manifests are marked and nothing else.
#pragma once

#include <atomic>
#include <functional>
#include <set>
#include <vector>

#include "store/library.h"
#include "store/record_runs.h"

namespace mirage {

class Marker {
 public:
  explicit Marker(RecordScratch& scratch, const std::atomic<bool>* interrupted = nullptr);
  // Marks what `roots`, ids of manifests, reach in the snapshot. Those marked before cost nothing. ENOENT: the library lacks
  // something live, and what that named cannot be known. EINTR.
  Status Add(const Snapshot& snapshot, const std::vector<ObjectId>& roots);
  bool Has(const ObjectId& root) const { return roots_.contains(root); }
  // Keys (33 bytes). Of every content that a live tree names there is one of kind kContent, also where there is no list.
  const IdSet& live() const { return live_; }

 private:
  Status Expand(const Snapshot& snapshot, std::string_view key);
  Status Emit(ObjectKind kind, const ObjectId& id);
  Status ExpandAll(const Snapshot& snapshot, RecordSorter* from);

  RecordScratch& scratch_;
  const std::atomic<bool>* const interrupted_;
  std::set<ObjectId> roots_;  // as many as there are refs
  IdSet live_;
  RecordSorter nodes_, contents_, chunks_;  // named, not yet looked at
};

}  // namespace mirage
