// What a collection begins from: the versions that refs, overlays and leases name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/library.h"

namespace mirage {

// Behind the name of an overlay's directory once there is no overlay any more, only its files: no root.
constexpr std::string_view kGoneOverlay = ".gone";

// Of leases and overlays. Taken before a snapshot's refs, so that what it names is in that snapshot. EIO: an overlay does not say what
// lies below it; then nothing may be collected.
Result<std::vector<ObjectId>> HeldVersions(const Library& library);
// Of the snapshot's refs, but for `without`.
Result<std::vector<ObjectId>> NamedVersions(const Snapshot& snapshot, const std::vector<std::string>& without = {});

}  // namespace mirage
