// What the user wants left out: fnmatch(3) patterns against the path from the root with a leading slash. `*` matches
// slashes too, as in tar(1) and borg; a directory that matches takes all below it along.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/result.h"

namespace mirage {

class Exclusion {
 public:
  // EINVAL: a pattern that begins with neither '/' nor '*' could match nothing.
  static Result<Exclusion> Compile(std::vector<std::string> patterns);
  // `path` without leading slash, or any directory above it. The root is never excluded.
  bool Matches(std::string_view path) const;
  const std::vector<std::string>& patterns() const { return patterns_; }

 private:
  explicit Exclusion(std::vector<std::string> patterns) : patterns_(std::move(patterns)) {}
  std::vector<std::string> patterns_;
};

}  // namespace mirage
