// What differs between two trees, as trees: what the second adds to the first, and what both have but not alike.
// Directories are there where something in them is, so that a walk meets what differs and nothing else. Nothing is
// computed ahead: a listing costs the difference of two directories, and below each pair of unlike ones a search that
// ends at the first find.
//
// Where the type of a name differs, the one was removed and the other added. A directory's own attributes are no
// difference, and neither are hard-link groups: `mirage diff` tells those.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "store/tree_reader.h"

namespace mirage {

enum class DeltaPart : uint8_t { kAdded, kModified };

struct DeltaEntry {
  Entry entry;     // of the second tree
  bool whole = true;  // all of it belongs; false: a directory, some of it does
  ObjectId other;  // of one that is not whole: the tree at the same place in the first
};

class DeltaTree {
 public:
  explicit DeltaTree(const TreeReader& reader) : reader_(reader) {}
  // In order, until visit returns false.
  Status Scan(DeltaPart part, const ObjectId& first, const ObjectId& second,
              const std::function<bool(std::string_view name, const DeltaEntry&)>& visit) const;
  Result<std::optional<DeltaEntry>> Lookup(DeltaPart part, const ObjectId& first, const ObjectId& second,
                                           std::string_view name) const;

 private:
  Result<std::optional<DeltaEntry>> Classify(DeltaPart part, const std::optional<Entry>& first,
                                             const Entry& second) const;
  Result<bool> HasAny(DeltaPart part, const ObjectId& first, const ObjectId& second) const;

  const TreeReader& reader_;
};

}  // namespace mirage
