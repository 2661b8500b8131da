// Unified diffs of two files' bytes, made by libgit2, which text_patch.cc alone sees.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "store/result.h"

namespace mirage {

// Larger files are compared as binary ones: a patch of them helps nobody, and both sides are held in memory.
constexpr uint64_t kMaxPatchBytes = 32 << 20;

// What `git diff` prints, with a/ and b/ before `path` (no leading slash), so that patch -p1 takes it. nullopt: no such
// file on that side. Empty when equal.
Result<std::string> MakeTextPatch(std::string_view path, const std::optional<std::string>& before,
                                  const std::optional<std::string>& after);

}  // namespace mirage
