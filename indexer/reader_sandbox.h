// What the disk reader may do once it begins to parse: read the image it was given, write to its pipe, and use a
// bounded amount of memory. Everything else ends the process. Called once, before the first byte of the image is looked
// at.
#pragma once

#include "store/result.h"

namespace mirage {

// In a build with AddressSanitizer memory is not limited: its shadow alone exceeds any limit.
Status EnterSandbox();

}  // namespace mirage
