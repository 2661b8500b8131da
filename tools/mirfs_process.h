// Starting the `mirfs` program, for the verbs that mount.
#pragma once

#include <string>
#include <vector>

#include "tools/command.h"

namespace mirage {

// ENOENT, ENOTDIR, EACCES, EBUSY (something is mounted there): what a mount would fail with, said before anything is
// started. Gives the absolute path.
Result<std::string> CheckMountpoint(const std::string& mountpoint);

// Starts `mirfs LIBRARY MOUNTPOINT -o ...` and returns when the mount is ready, or the daemon's error. `options`: each
// one of mount(8), "edit=debian"; commas in values are escaped here, but `raw_options` pass as the user wrote them.
// With `foreground` this process becomes the daemon, and there is a return only for an error.
Status StartMirfs(const Session& session, const std::string& mountpoint, const std::vector<std::string>& options,
                  const std::string& raw_options, bool foreground);

// Says on stdout, with --json, what was mounted.
void PrintMounted(Session& session, const std::string& mountpoint, const std::string& branch);

}  // namespace mirage
