// The mirfs program, for people, for fstab (mount.mirfs) and, with -f, for systemd (Type=notify). It comes back when the
// mount is ready (or has failed, with one line), and a daemon serves on until it is unmounted.
//
// An edit mount (edit=BRANCH, resume=ID) commits when it has been unmounted, by whatever road: umount(8), `mirage
// umount`, SIGTERM. Always unmount first, then commit: only the unmount makes the kernel hand over what it had not
// written yet.
#pragma once

#include "mirfs/mount_arguments.h"

namespace mirage {

// Runs the program: mounts, goes to the background unless told not to, serves, commits. Returns an exit code: 0, 1
// failed, 2 usage. Only with one thread running.
int RunMirfs(int argc, const char* const* argv);

}  // namespace mirage
