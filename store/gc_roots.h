// What a collection begins from: the versions that refs, overlays and leases name.
#pragma once

#include <string>
#include <vector>

#include "store/library.h"

namespace mirage {

// Of leases and overlays. Taken before a snapshot's refs, so that what it names is in that snapshot. EIO: an overlay does not say what
// lies below it; then nothing may be collected.
Result<std::vector<ObjectId>> HeldVersions(const Library& library);
// Of the snapshot's refs, but for `without`.
Result<std::vector<ObjectId>> NamedVersions(const Snapshot& snapshot, const std::vector<std::string>& without = {});

}  // namespace mirage
