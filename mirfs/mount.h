// The mirfs program: `mirfs LIBRARY MOUNTPOINT [-f] [-o OPTIONS]`, for people and for fstab. It comes back when the
// mount is ready (or has failed, with one line), and a daemon serves on until it is unmounted.
//
// An edit mount (edit=BRANCH, resume=ID) commits when it has been unmounted, by whatever road: umount(8), `mirage
// umount`, SIGTERM. Always unmount first, then commit: only the unmount makes the kernel hand over what it had not
// written yet.
#pragma once

#include <cstddef>
#include <string>

#include "store/result.h"

namespace mirage {

struct MountArguments {
  std::string library, mountpoint;
  bool foreground = false;
  std::string edit_branch, resume_id;  // at most one; both empty: all versions, read-only
  std::string message, tag;            // for the commit
  bool detached = false;               // no commit at the unmount
  bool allow_other = false, default_permissions = false;
  bool system = false;        // an edit mount by root with set-id programs and device nodes that work
  size_t cache_bytes = 0;     // 0: the library's policy
  std::string mount_options;  // what is left, for the kernel
};

// EINVAL: usage; the message says what is wrong.
Result<MountArguments> ParseMountArguments(int argc, const char* const* argv);

// Runs the program: mounts, goes to the background unless told not to, serves, commits. Returns an exit code: 0, 1
// failed, 2 usage. Only with one thread running.
int RunMirfs(int argc, const char* const* argv);

}  // namespace mirage
