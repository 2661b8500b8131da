// Three-way merge of versions by their trees. Each side's changes are those against `base`; equal subtrees are pruned by id,
// so the cost follows the changes (hard links: the links maps are read whole when a side changed its own).
//
// What merges: changes of different names; of one name, changes of different fields (content; mode with its access list;
// owner; group; each extended attribute); the same change on both sides. A regular file's mtime goes with its content, else the
// later one holds, as for directories, whose mtime says no more than that something in them changed. Hard-link groups are
// merged as groups: a link made or broken by one side is made or broken. What does not is a conflict. There are no renames
// here: a file that one side moved and the other edited is a conflict, never an edit lost.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/object.h"

namespace mirage {

struct MergeConflict {
  enum Kind {
    kContent,   // both changed what it holds (or a link's target, or a device's number)
    kMetadata,  // both changed the same attribute
    kType,      // one changed what it is, the other changed it too
    kAdded,     // both made it, differently
    kDeleted,   // one deleted it, the other changed it (or something in it)
    kLinks,     // would be one file with another, which differs
  };
  Kind kind;
  std::string path;  // no leading slash
  std::optional<Entry> base, ours, theirs;
};
// "both changed its content": one clause, for a person.
std::string_view DescribeConflict(MergeConflict::Kind kind);

// What a name becomes where the two sides conflict.
enum class MergeFavor { kOurs, kTheirs };

struct MergedVersion {
  // `ours`, with the root, links, file_count and total_bytes of the merged tree. A valid tree in any case.
  Manifest manifest;
  std::vector<MergeConflict> conflicts;  // in canonical order, those of hard links last
};

// `objects` must find all that the three versions name, and what `writer` takes. Writes the trees that neither side has.
// EIO: damage. ENAMETOOLONG: directories nested deeper than any path can name.
Result<MergedVersion> MergeVersions(const ObjectReader& objects, ObjectWriter& writer, const Manifest& base,
                                    const Manifest& ours, const Manifest& theirs, MergeFavor favor = MergeFavor::kOurs);

}  // namespace mirage
