#include "indexer/exclusion.h"

#include <fnmatch.h>

#include <algorithm>

namespace mirage {

Result<Exclusion> Exclusion::Compile(std::vector<std::string> patterns) {
  for (const std::string& pattern : patterns) {
    if (pattern.empty() || (pattern[0] != '/' && pattern[0] != '*')) {
      return Fail(EINVAL, "exclude pattern '{}': it must begin with / or *", pattern);
    }
  }
  return Exclusion(std::move(patterns));
}

bool Exclusion::Matches(std::string_view path) const {
  if (patterns_.empty() || path.empty()) return false;
  std::string prefix = "/";
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    prefix += path.substr(start, end - start);
    for (const std::string& pattern : patterns_) {
      if (fnmatch(pattern.c_str(), prefix.c_str(), 0) == 0) return true;
    }
    prefix += '/';
    start = end + 1;
  }
  return false;
}

}  // namespace mirage
