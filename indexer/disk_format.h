// What kind of disk image a file is, by its first bytes, and everything that can be refused before an appliance is
// started.
#pragma once

#include <string>

#include "store/result.h"

namespace mirage {

// The format by QEMU's name (raw, qcow2, vmdk, vdi, vhdx, vpc). `requested` "" detects; "raw" and "qcow2" are
// believed.  An image may name other files of the host (a qcow2's backing or external data file, a vmdk's extents):
// who hands in such an image could read any file of this machine through it. A detected image that names others is
// refused; a qcow2 that was asked for by name is the user's own word.  EINVAL, each with what to do: empty,
// truncated, encrypted, names other files, not of the requested format. EACCES, ENOENT.
// With `keys` LUKS and BitLocker on the whole disk are not refused. A backing file of a qcow2 that was asked for must be
// there; the message names the one that is not.
Result<std::string> DetectDiskFormat(const std::string& path, const std::string& requested, bool keys = false);

}  // namespace mirage
