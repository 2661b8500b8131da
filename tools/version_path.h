// A path inside a version, as the command line names it: symbolic links are followed within the version's own root, as
// if it were a chroot, and never lead out of it.
#pragma once

#include <string>
#include <string_view>

#include "store/revision.h"
#include "store/tree_reader.h"

namespace mirage {

struct Located {
  std::string path;  // "/usr/bin/sh", links in it resolved; "/" is the root
  Entry entry;
};

// Follows links on the way, and the last component too when `follow_last`. ENOENT and ENOTDIR name the path; ELOOP.
Result<Located> LocatePath(const TreeReader& reader, const Manifest& manifest, std::string_view path, bool follow_last);

// "V:PATH" or "V" (then the root).
struct LocatedInVersion {
  Version version;
  Located at;
};
Result<LocatedInVersion> LocateArgument(const Snapshot& snapshot, const TreeReader& reader, const std::string& argument,
                                        bool follow_last);

// "/etc//x/" and "etc/x" -> "etc/x"; the root -> "". EINVAL for "..".
Result<std::string> TreePath(std::string_view path);

}  // namespace mirage
