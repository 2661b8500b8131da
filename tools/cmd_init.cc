#include "mirfs/mount_arguments.h"
#include "tools/verbs.h"

namespace mirage {
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
      const auto group = ParseOwner("gid", arguments->group);
      if (!group) return UsageError("--shared: " + group.error().message);
      create.group = *group;
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
