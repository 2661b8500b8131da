// A directory of this machine, filled with everything that a filesystem can hold, and compared with a version.
#pragma once

#include <string>

#include "store/library.h"

namespace mirage::testing {

// Fills an empty directory of a filesystem with xattrs and ACLs, as root: odd names, links of all kinds, devices,
// sockets, holes, attributes of all namespaces, times before 1970 and behind 2106.
void FillStrangeTree(const std::string& directory);

// Compares by lstat and read, from the outside: names, type, mode, owner, mtime in ns, size, target, rdev, link
// groups, xattrs and content. Adds a gtest failure for every difference; true when there is none. `entries`: how many
// were compared.
bool VersionEqualsDirectory(const std::shared_ptr<Library>& library, const Manifest& manifest,
                            const std::string& directory, size_t* entries = nullptr);

}  // namespace mirage::testing
