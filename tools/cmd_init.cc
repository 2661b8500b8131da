#include <grp.h>

#include <charconv>

#include "tools/verbs.h"

namespace mirage {
namespace {

// By name, else by number.
Result<uint32_t> FindGroup(const std::string& name) {
  std::string buffer(1 << 20, '\0');
  struct group entry {}, *found = nullptr;
  ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found != nullptr) return found->gr_gid;
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc() && end == name.data() + name.size() && number != static_cast<gid_t>(-1)) return number;
  return UsageError(fmt::format("group {}: no such group; give its name or its number", name));
}

}  // namespace

Action DeclareInit(Options& options) {
  struct Arguments {
    std::string directory, group;
    bool network = false;
  };
  auto arguments = std::make_shared<Arguments>();
  options.Positional("DIR", arguments->directory, "where; else the library as for every verb", false);
  options.Flag("--allow-network-filesystem", arguments->network, "NFS, SMB or FUSE: only where flock is known to work");
  options.Value("--shared", arguments->group, "GROUP, by name or number: its members use the library as its owner does");
  return [arguments](Session& session) -> Result<int> {
    if (!arguments->directory.empty()) session.library_path = arguments->directory;
    Library::CreateOptions create;
    create.allow_network_filesystem = arguments->network;
    if (!arguments->group.empty()) {
      ASSIGN_OR_RETURN(create.group, FindGroup(arguments->group));
    }
    TRY(Library::Create(session.library_path, create));
    ASSIGN_OR_RETURN(const auto library, session.Open());
    if (session.json) {
      std::string uuid;
      for (const char c : library->format().uuid) uuid += fmt::format("{:02x}", static_cast<uint8_t>(c));
      Json json;
      AddText(json, "library", library->path());
      json["uuid"] = uuid;
      session.out->Object(json);
    } else {
      session.Say(fmt::format("made an empty library in {}{}{}", library->path(),
                              create.group ? ", shared with group " : "", arguments->group));
    }
    return kExitDone;
  };
}

}  // namespace mirage
