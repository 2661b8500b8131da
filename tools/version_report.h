// One version as `show` and `log` give it.
#pragma once

#include <string>
#include <vector>

#include "store/library.h"
#include "tools/output.h"

namespace mirage {

// What the importer found out about the guest.
struct SystemFacts {
  bool known = false;
  std::string product;        // "Debian GNU/Linux 12 (bookworm)"
  std::string distribution;   // "debian 12.4"; empty, as the next two: not known
  std::string hostname, arch;
  uint64_t package_count = 0;
};
Result<SystemFacts> ReadSystemFacts(const ObjectReader& reader, const Manifest& manifest);

// Names, parents, author, time, message, source.
Json VersionJson(const ObjectId& id, const Manifest& manifest, const std::vector<std::string>& names);
// "debian, debian/v3"; empty when there are none.
std::string JoinNames(const std::vector<std::string>& names);
std::string FirstLine(const std::string& message);

}  // namespace mirage
