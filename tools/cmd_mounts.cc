#include "mirfs/mount_status.h"
#include "tools/verbs.h"

namespace mirage {

Action DeclareMounts(Options&) {
  return [](Session& session) -> Result<int> {
    ASSIGN_OR_RETURN(const auto library, session.Open());
    ASSIGN_OR_RETURN(const auto mounts, ListMounts(*library));
    for (const MountStatus& mount : mounts) {
      if (session.json) {
        Json json;
        AddText(json, "mountpoint", mount.mountpoint);
        json["shows"] = mount.shows;
        AddText(json, "user", mount.user);
        json["pid"] = mount.pid;
        json["since"] = FormatTime(mount.since, 0);
        json["memory_bytes"] = mount.memory_bytes;
        json["inodes"] = mount.inodes;
        json["requests"] = mount.requests;
        json["requests_by_kind"] = mount.requests_by_kind;
        json["hand_overs"] = mount.hand_overs;
        json["cache_hits"] = mount.cache_hits;
        json["cache_misses"] = mount.cache_misses;
        json["cache_bytes"] = mount.cache_bytes;
        session.out->Object(json);
        continue;
      }
      const uint64_t looked = mount.cache_hits + mount.cache_misses;
      session.out->PathLine(
          fmt::format("{} pid {} since {} {}, {} requests, {} inodes, cache {} with {} % hits, {} on ", mount.user,
                      mount.pid, FormatTime(mount.since, 0), FormatSize(mount.memory_bytes), mount.requests,
                      mount.inodes, FormatSize(mount.cache_bytes), looked ? 100 * mount.cache_hits / looked : 0,
                      mount.shows),
          mount.mountpoint);
    }
    return kExitDone;
  };
}

}  // namespace mirage
