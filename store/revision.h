// The forms of a version on the command line (branch, branch/tag, ~N, @id, :path), resolved against a snapshot.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "store/library.h"

namespace mirage {

struct Version {
  ObjectId id;
  Manifest manifest;
  std::string branch, tag;  // as named; empty where the form names none (`@id`, `~N`)
};
struct VersionPath {
  Version version;
  std::optional<std::string> path;  // what stood behind ':', normalised to "/a/b"; nullopt: no ':'
};

// ENOENT: no such branch, tag, ancestor or id. EINVAL: not a revision, or an ambiguous prefix.
Result<Version> ResolveVersion(const Snapshot& snapshot, std::string_view text);
Result<VersionPath> ResolveVersionPath(const Snapshot& snapshot, std::string_view text);
// "A..B" into its sides; nullopt when there is no "..".
std::optional<std::pair<std::string, std::string>> SplitRange(std::string_view text);

}  // namespace mirage
