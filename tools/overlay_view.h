// What an overlay would commit, mounted or not, for `diff` and `overlay diff`.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mirfs/overlay.h"
#include "tools/change_printer.h"

namespace mirage {

// The overlay to look at: of one that is mounted, as its daemon has it now, with all that the kernel held back.
Result<std::unique_ptr<Overlay>> LookAtOverlay(Library& library, const std::string& id);

// Prints what a commit would change against `base` (null: the overlay's own base) at or below `paths`, and says what
// mirage.yaml excludes. Gives diff's exit code: 0 nothing, 1 changes.
Result<int> PrintOverlayChanges(Session& session, const std::shared_ptr<Library>& library, const Overlay& overlay,
                                const Manifest* base, const std::vector<std::string>& paths, ChangePrinter::Options options);

}  // namespace mirage
