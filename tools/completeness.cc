#include "tools/completeness.h"

#include <cstdio>

#include <fmt/format.h>

#include "tools/output.h"

namespace mirage {

void WarnIfIncomplete(std::string_view version, const Manifest& manifest) {
  for (const std::string& omission : manifest.omissions) {
    if (!omission.starts_with(kUnreadable)) continue;
    fmt::print(stderr, "warning: {} is incomplete: {}\n", version, EscapeBytes(omission));
  }
}

}  // namespace mirage
