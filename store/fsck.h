// Checks every rule of FORMAT.md that a whole library must hold, and says which versions and paths a damage touches.
#pragma once

#include <functional>
#include <string>

#include "store/library.h"

namespace mirage {

struct FsckReport {
  uint64_t packs = 0, blocks = 0, objects = 0, chunks = 0, contents = 0, versions = 0, records = 0;
  uint64_t damaged = 0;  // findings
};
struct FsckFinding {
  std::string what;     // "packs/….pack: block at 4096: checksum does not match"
  std::string version;  // "debian/v1", empty where not known
  std::string path;     // "/etc/passwd", empty where not known
};
// Every pack's blocks (checksum, frame, each row's SHA-256); refs.log's chain and that every ref names a manifest; every manifest,
// tree, links map, xattr set decodes and hashes to its id; every content's list adds up and hashes to its id; RocksDB agrees with packs.
// `progress(done, total bytes)` may be empty. An Error: it could not run.
Result<FsckReport> Fsck(Library& library, const std::function<void(const FsckFinding&)>& finding,
                        const std::function<void(uint64_t, uint64_t)>& progress);

}  // namespace mirage
