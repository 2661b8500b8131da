// An overlay becomes a version. Work follows the change: only directories that changed are written, only files whose bytes
// were written are read, and of those only chunks that are new are stored.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "mirfs/overlay.h"
#include "store/library.h"

namespace mirage {

struct CommitOptions {
  std::string message = {}, tag = {}, author = {};  // empty: what the overlay was mounted with, else the default
  std::string to_branch = {};                       // not empty: a new branch of that name, grown from the overlay's base
  std::function<void(std::string_view)> say = {};  // lines for the user: what was excluded; may be empty
};

// Commits an overlay that nobody has mounted, and removes it. nullopt: it held no changes (removed too).
// After any error the overlay is whole and its record holds the error; the message names the command to go on with.
// EAGAIN: the branch moved since the overlay was made (state kConflict). EEXIST: the tag is taken. EBUSY: it is mounted.
Result<std::optional<Published>> CommitOverlay(Library& library, const std::string& id, const CommitOptions& options);
// The same for one that this process holds (the daemon after its session ended).
Result<std::optional<Published>> CommitOverlay(Library& library, std::unique_ptr<Overlay> overlay,
                                               const CommitOptions& options);

}  // namespace mirage
