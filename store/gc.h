// Collection: removes from a library what no ref, overlay or lease reaches, while others read and write
// (FORMAT.md, "Sessions and collection"). Mark without a lock, condemn in one short publish, delete packs that no session may
// read any more.
//
// Under the publish lock it does what costs milliseconds: look at refs, leases and overlays, move a file of deletions into
// RocksDB (33 bytes a dead row). If others publish faster than it can look, it does the last look under the lock: some
// microseconds a row of the database.
//
// Memory: `memory_bytes` and a few hundred bytes a pack and a ref, whatever is in the library. Scratch on disk: 33 bytes a live
// object beyond what fits in memory, twice that for moments (mark.h).
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "store/library.h"

namespace mirage {

struct GcOptions {
  bool dry_run = false;              // changes nothing, says what would be
  RetentionRule retention;           // tags it lets go are deleted first; empty: none
  std::string branch;                // whose tags; empty: of all branches
  // Also rewrites packs of which less than half is live, small ones that fit together, and those not yet rewritten at
  // `compact_level`; objects keep the order in which they lie.
  bool compact = false;
  int compact_level = 0;             // 0: the policy's
  int wait_ms = 5000;                // for sessions that may still read a condemned pack
  // Before leases are looked at, while other sessions live: a mount leases a version that its user stands in when it sees that
  // the version has lost its name.
  int lease_grace_ms = 500;
  size_t memory_bytes = 32 << 20;
  const std::atomic<bool>* interrupted = nullptr;  // stops with EINTR between steps; what was condemned stays so
  std::function<void(std::string_view)> say;       // a line for the user now and then; empty: quiet
  std::function<void(std::string_view)> at_step;   // for tests: "marked", "looked", "condemned", "deleted"
};

struct GcReport {
  std::vector<std::string> tags_deleted;  // "debian/v3"
  uint64_t versions_kept = 0;             // roots
  uint64_t live_objects = 0, live_chunks = 0;
  uint64_t dead_objects = 0, dead_chunks = 0;       // rows removed
  uint64_t packs_condemned = 0, condemned_bytes = 0;  // now; the files' sizes
  uint64_t packs_deleted = 0, freed_bytes = 0;      // also of collections before. A dry run: what could be deleted
  uint64_t packs_waiting = 0, waiting_bytes = 0;    // condemned, but somebody may still read them
  std::vector<std::string> waited_for;              // "PID PROGRAM PURPOSE" of those
  uint64_t packs_rewritten = 0, rewritten_bytes = 0, written_bytes = 0;  // by compaction: before, after
  uint64_t scratch_bytes = 0;                       // the most that lay on disk for the mark
  std::vector<std::string> skipped;                 // packs that are kept though something asked for them: one sentence each
};

// EAGAIN: another collection is running (it is named). EINTR. ENOENT: something live is missing; run fsck.
Result<GcReport> CollectGarbage(Library& library, const GcOptions& options);

// A file of kReserveBytes that `init` makes, so that there is something to give back when the disk is full: RocksDB needs
// some 100 KB to open for writing, a collection 40 bytes for each row that it deletes. 4 MiB are 100,000 rows, and 1 % of a
// library of one small system.
constexpr uint64_t kReserveBytes = 4 << 20;
Status MakeReserve(Env& env, const std::string& library_path);       // if it is not there; ENOSPC leaves nothing
Result<bool> ReleaseReserve(Env& env, const std::string& library_path);  // false: there was none

}  // namespace mirage
