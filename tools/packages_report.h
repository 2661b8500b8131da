// The installed packages of versions, as the import's inspection found them.
#pragma once

#include <vector>

#include "indexer/system_description.h"
#include "store/revision.h"
#include "tools/command.h"

namespace mirage {

// Sorted by name, version, architecture. ENODATA: nothing is known of this version's packages: that is no empty list.
Result<std::vector<Package>> ReadPackages(const ObjectReader& reader, const Version& version, std::string_view name);

// One line a package that differs: A added, D deleted, M another version. Returns how many.
size_t PrintPackageDifferences(Session& session, const std::vector<Package>& before, const std::vector<Package>& after);

}  // namespace mirage
