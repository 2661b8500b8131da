// What differs between two versions. Equal subtrees are pruned by id, so the cost follows the change.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "store/tree_reader.h"

namespace mirage {

enum class ChangeKind : char { kAdded = 'A', kDeleted = 'D', kContent = 'M', kMetadata = 'm', kType = 'T' };

struct Change {
  ChangeKind kind;
  std::string path;  // no leading slash; "" is the root
  std::optional<Entry> before, after;
  bool links_changed = false;  // its hard-link group has other members (then at least kMetadata)
};

// Calls visit for each change in canonical order; a directory added or deleted is followed by what is in it. `under`: only
// that path and below it ("" : all). A directory whose content changed, but nothing of itself, is not reported.
Status DiffVersions(const TreeReader& reader, const Manifest& a, const Manifest& b, std::string_view under,
                    const std::function<Status(const Change&)>& visit);

}  // namespace mirage
