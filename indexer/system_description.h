// What an operating system on a disk is: the inspection object of a version (kind `i`), canonical JSON (sorted keys, no
// spaces)
//   {"mountpoints":{PATH:DEVICE},"os":{"arch","distro","hostname","major","minor","product","type"},
//    "packages":[{"arch","name","version"}],"schema":1}
// and of a container image also "container": the `config` object of its configuration (Env, Entrypoint, ...).
// Words are libguestfs's ("linux", "debian", "x86_64"; "unknown"). Packages are sorted by name, version, architecture;
// a version is [EPOCH:]VERSION[-RELEASE]. Text that is not UTF-8 comes with replacement characters.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "store/result.h"

namespace mirage {

struct Package {
  std::string name, version, arch;
  auto operator<=>(const Package&) const = default;
};

struct SystemDescription {
  std::string type, distro, product, hostname, arch;
  int major = 0, minor = 0;
  std::vector<Package> packages;
  std::map<std::string, std::string> mountpoints;  // path -> device
  std::string container;                           // JSON; empty: none
  std::string layers;  // of a container image: the chain of its layers (layer_history.h); empty: none
};

std::string EncodeSystem(SystemDescription system);
// EIO: not such an object; EPROTONOSUPPORT: a schema of a newer program.
Result<SystemDescription> DecodeSystem(std::string_view json);

}  // namespace mirage
