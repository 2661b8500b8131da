// OVA: a tar archive of an OVF descriptor and the disks of one virtual machine. The descriptor and its names are a
// stranger's: only members of the archive itself are taken, and written under names of ours.
#pragma once

#include <atomic>
#include <string>
#include <string_view>
#include <vector>

#include "store/result.h"

namespace mirage {

// Whether a file's first bytes are those of a tar archive whose first member is an OVF descriptor.
bool LooksLikeOva(std::string_view head);

// Writes the disks to `scratch`/disk.N, in the order of the descriptor's disks, and gives these paths. They take no more
// room than the archive does, unless they are compressed in it (byte_stream.h's limit, and scratch_file.h's). EINVAL: the
// descriptor does not parse, names no disks, one twice, or one that is not in the archive. EIO, E2BIG, ENOSPC, EINTR.
Result<std::vector<std::string>> ExtractOva(const std::string& path, const std::string& scratch,
                                            const std::atomic<bool>* interrupted);

// The files of a descriptor's disks, in order. Exposed for tests.
struct OvaDisk {
  std::string file;
  bool compressed = false;
};
Result<std::vector<OvaDisk>> ParseOvf(std::string_view xml);

}  // namespace mirage
