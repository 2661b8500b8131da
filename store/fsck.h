// Checks every rule of FORMAT.md that a whole library must hold, says which versions and paths a damage touches, and
// mends what can be mended. It needs nothing but FORMAT: where RocksDB does not open, its content is made anew from the
// packs and from refs.log, in a scratch directory under staging/; the check compares with that, and the repair puts it in
// place.
//
// Memory is bounded whatever the library's size: sorted runs of kFsckRunsBytes each (five at most), one block, RocksDB's
// cache. It grows with the number of refs, and with nothing else. Scratch space: what db/ takes, and some 200 bytes a file
// of the versions' distinct directories.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "store/library.h"

namespace mirage {

constexpr size_t kFsckRunsBytes = 32 << 20;

struct FsckReport {
  uint64_t packs = 0, blocks = 0, objects = 0, chunks = 0, contents = 0, versions = 0, records = 0;
  uint64_t damaged = 0;   // findings of damage; after a repair, those that are left
  uint64_t repaired = 0;  // findings before a repair; 0: nothing was to do, and nothing was changed
};
struct FsckFinding {
  enum Kind {
    kDamage,  // what was found
    kNote,    // no damage, but worth a look: a version that no ref names
    kRepair,  // what was done
    kLeft,    // damage that is there after the repair
  };
  std::string what;     // "packs/….pack: block at 4096: checksum does not match"
  std::string version;  // "debian/v1", empty where not known
  std::string path;     // "/etc/passwd", empty where not known
  Kind kind = kDamage;
};
// `stage`: "packs" or "contents", each once from 0 to the packs' bytes; a repair checks twice.
using FsckProgress = std::function<void(std::string_view stage, uint64_t done_bytes, uint64_t total_bytes)>;

struct FsckOptions {
  Env* env = &Env::Default();
  bool repair = false;
  int lock_timeout_ms = 60'000;
};
// Checks: every pack's blocks (checksum, frame, each row's SHA-256); refs.log's chain, and that every ref names a
// manifest; that every manifest, tree, links map, xattr set and inspection of a named version is there and decodes, and
// that parents and children agree; that every content's list adds up and its bytes hash to it; that RocksDB holds what
// packs and refs.log say. Ancestors that no ref names may have lost their trees: a collector may have taken them.
//
// Without `repair` nothing in the library changes, and writers go on; scratch files lie in staging/, or in $TMPDIR where the
// library's disk has no room for them. With it the publish lock is held exclusively
// throughout (readers and mounts that are open go on), and
//   - what checks in a damaged pack is copied to a new one, and the damaged one moved to quarantine/;
//   - an object that RocksDB alone still has is written to a pack again;
//   - RocksDB is built beside and put in place, the old one moved to quarantine/;
//   - a byte that changed in FORMAT or refs.log is put right where the checksum proves which one it was.
// Nothing is ever deleted. A crash anywhere leaves a library that another repair finishes. Then the check is run again.
//
// An Error: it could not run. ENOENT: no library there. EAGAIN: the lock's holder. EPROTONOSUPPORT: a newer format.
Result<FsckReport> Fsck(const std::string& path, const FsckOptions& options,
                        const std::function<void(const FsckFinding&)>& finding, const FsckProgress& progress);
// A check of a library that is open.
Result<FsckReport> Fsck(Library& library, const std::function<void(const FsckFinding&)>& finding,
                        const FsckProgress& progress);

}  // namespace mirage
