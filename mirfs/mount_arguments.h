// What the mirfs program is told, in either of its two tongues: `mirfs LIBRARY MOUNTPOINT [-f] [-o OPTIONS]`, and,
// called by the name mount.mirfs, what mount(8) says to its helpers: `SPEC DIR [-sfnvrw] [-t TYPE] [-o OPTIONS]`, where
// -f is "fake". Only the words are checked here, no file is looked at.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "store/result.h"

namespace mirage {

struct MountArguments {
  std::string library, mountpoint;
  bool foreground = false;
  bool fake = false;                   // mount(8)'s: all but the mount
  std::string edit_branch, resume_id;  // at most one; both empty: read-only
  std::string branch, version;         // read-only: this branch's tags, or this one version, at the mount point itself
  std::string message, tag, author;    // for the commit
  std::optional<uint32_t> uid, gid;    // read-only: the owner everything is shown with
  bool allow_other = false, default_permissions = false;
  bool detached = false;      // no commit at the unmount
  bool passthrough = true;    // root's edits: the kernel reads and writes files that are whole on the host (fuse_ops.h)
  bool system = false;        // root's mounts: set-id programs and device nodes work
  size_t cache_bytes = 0;     // 0: the library's policy
  std::string mount_options;  // what is left, for the kernel

  bool edit() const { return !edit_branch.empty() || !resume_id.empty(); }
};

extern const char kMountUsage[];

// `key`: "uid" or "gid". A number, or a name of this machine. EINVAL
Result<uint32_t> ParseOwner(const std::string& key, const std::string& value);

// EINVAL: usage; the message says what is wrong.
Result<MountArguments> ParseMountArguments(int argc, const char* const* argv);

}  // namespace mirage
