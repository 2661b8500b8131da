// The few files that tell what operating system a tree holds, picked out of an import while they pass: of a directory, an
// archive or a container image, which have no other reader that looks for a system.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "indexer/system_description.h"

namespace mirage {

// Whether a path, without leading slash, is one of them: os-release, the lists of packages, programs whose header tells
// the architecture.
bool IsSystemFile(std::string_view path);

class SystemFiles {
 public:
  // A file, of whose bytes nothing has come yet, and its bytes, in order. What is too long is cut.
  void Begin(const std::string& path);
  void Add(const std::string& path, std::string_view bytes);
  // What they say; `found` false: there is no os-release, and so no system that is known. `packages` false: no list of a
  // kind that is known.
  SystemDescription Describe(bool& found, bool& packages) const;

 private:
  std::map<std::string, std::string> files_;
  size_t bytes_ = 0;
};

}  // namespace mirage
