// Where something in a version comes from, answered from the history.
#pragma once

#include <string>

#include "store/tree_reader.h"

namespace mirage {

// The earliest version, of this one and the first parents before it, that has the same content at this path: the same
// bytes, subtree, link target or device, whatever the modes and times. Named as NameOfVersion does. Reads one path a
// version: O(ancestors).
Result<std::string> FirstVersionWith(const TreeReader& reader, const Snapshot& snapshot, const ObjectId& manifest,
                                     const std::string& path, const Entry& entry);

// "branch/tag" by the first tag of the branch it was made on, else of any branch; "@id" if none points to it.
Result<std::string> NameOfVersion(const Snapshot& snapshot, const ObjectId& id, const Manifest& manifest);

}  // namespace mirage
