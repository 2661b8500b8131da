// What the verbs that make or move refs say about them, and the rules they keep.
#pragma once

#include <optional>
#include <string>

#include "mirfs/committer.h"
#include "tools/command.h"

namespace mirage {

// "BRANCH/TAG ID", or the same as JSON.
void PrintRef(Session& session, const std::string& branch, const std::string& tag, const ObjectId& id);

// What the commit of an edit came to: as PrintRef, or that nothing had changed; and what it left out.
void PrintCommit(Session& session, const std::optional<Published>& version, const ExcludedPaths& excluded);

struct RefName {
  std::string branch, tag;
};
// "debian/v1" into its parts; EINVAL for anything else.
Result<RefName> ParseTagReference(std::string_view text);

}  // namespace mirage
