// What the files of a Linux system say about it, read as libguestfs reads them, so that both roads to a disk give the
// same description. Texts come from images: nothing in them is trusted, and what does not parse is passed over.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "indexer/system_description.h"

namespace mirage {

struct FstabLine {
  std::string device, path, filesystem, options;
};
// Lines that mount a disk's filesystem at a path: no swap, no kernel's, network's or removable ones.
std::vector<FstabLine> ParseFstab(std::string_view text);

// os-release(5): product, distro, major, minor. `debian_version`: /etc/debian_version, which has the minor number.
void DescribeRelease(std::string_view os_release, std::string_view debian_version, SystemDescription& system);

// Installed packages of /var/lib/dpkg/status.
std::vector<Package> ParseDpkgStatus(std::string_view text);

// Those of Alpine's /lib/apk/db/installed.
std::vector<Package> ParseApkInstalled(std::string_view text);

// libguestfs's word for the machine of an ELF file, given its first 20 bytes or more.
std::optional<std::string> ElfArchitecture(std::string_view head);

// The first line, without spaces around it.
std::string FirstLine(std::string_view text);

}  // namespace mirage
