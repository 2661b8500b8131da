// What every report on a version says first, on stderr and with -q too, if a filesystem of its source was left out
// because it could not be read: what is not there may be what was looked for.
#pragma once

#include <string_view>

#include "store/object.h"

namespace mirage {

// "warning: web/v1 is incomplete: unreadable: /dev/sda2 (xfs): ...", a line each; nothing if the version is whole.
void WarnIfIncomplete(std::string_view version, const Manifest& manifest);

}  // namespace mirage
