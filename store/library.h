// A library on disk: open it, see a snapshot of it, stage a transaction, publish.
//
// Order of durability (FORMAT.md, "Publish"): packs are finished and synced while staged; then, under locks/publish:
//   1. packs renamed into packs/, directory synced      2. SST files ingested (RocksDB syncs them and its MANIFEST)
//   3. compare-and-swap against the refs as they are    4. the record appended to refs.log and fdatasync'd: it exists
// A crash before 4 leaves the old state and garbage; after 4 the new state. RocksDB's refs lag by at least that record
// and are caught up from refs.log; a Snapshot always applies the rest in memory.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "store/content_reader.h"
#include "store/content_writer.h"
#include "store/file_lock.h"
#include "store/format.h"
#include "store/map_node.h"
#include "store/metadata_db.h"
#include "store/ref_log.h"
#include "store/retention.h"
#include "store/session.h"

namespace mirage {

// What mirage.yaml says; may be edited or lost (then these defaults hold). Bad YAML is an error that names the line.
struct Policy {
  int compression_level = 2;
  int compact_level = 15;             // zstd, of what `gc --compact` rewrites
  RetentionRule retention;            // applied by every gc to every branch; empty: nothing is forgotten
  std::vector<std::string> exclude;   // fnmatch(3) patterns against the path from the root, "/var/cache/*"
  int lock_timeout_ms = 60'000;
  size_t cache_bytes = 64 << 20;
  uint64_t max_hole_bytes = uint64_t{4} << 40;  // of all files of one import (indexer/IMPORT.md)
};
Result<Policy> ParsePolicy(std::string_view yaml, std::string_view file_name);

// An immutable view of the library at one sequence number. Thread-safe; keeps its database files readable while it lives.
class Snapshot final : public ChunkIndex {
 public:
  ~Snapshot() override;
  Result<std::string> ReadObject(ObjectKind kind, const ObjectId& id) const override;
  Result<std::optional<Location>> FindChunk(const ObjectId& id) const override;

  uint64_t sequence() const { return position_.sequence; }
  // How often the library had been collected when the database was read. What was condemned later is still seen here.
  uint64_t generation() const { return generation_; }
  // The generation in which a repair made the database anew; 0: none did. What was there before it may be lost.
  uint64_t made_in() const { return made_in_; }
  const LogPosition& position() const { return position_; }
  Result<std::optional<Ref>> Branch(const std::string& name) const;
  Result<std::optional<Ref>> Tag(const std::string& branch, const std::string& tag) const;
  Result<std::map<std::string, Ref>> Branches() const;
  Result<std::map<std::string, Ref>> Tags(const std::string& branch) const;  // by tag name, without the branch
  // The first tag given to the branch's head: what `latest` points to.
  Result<std::string> LatestTag(const std::string& branch) const;
  Result<uint64_t> HighestVersion(const std::string& branch) const;
  const MetadataDb& database() const { return *db_; }

 private:
  friend class Library;
  Snapshot() = default;
  std::shared_ptr<const MetadataDb> db_;  // shared with snapshots that only replayed more of refs.log
  std::shared_ptr<const void> hold_;      // keeps the session from saying that it has passed `generation_`
  uint64_t generation_ = 0, made_in_ = 0;
  bool rows_moved_ = false;  // refs.log tells of rows that came or went otherwise than with a version, which `db_` does not know
  LogPosition position_;
  std::map<std::string, std::optional<Ref>> tail_;  // refs moved behind what the database has; nullopt: deleted
  std::map<std::string, uint64_t> tail_highest_;
};

// ENOENT, with a sentence that tells which: the library has no such version, or only its manifest: a collection keeps
// the manifests of all ancestors, but the trees and contents of those alone that a ref, an overlay or a lease names.
Status CheckContents(const Snapshot& snapshot, const ObjectId& manifest);

class Transaction;

class Library : public std::enable_shared_from_this<Library> {
 public:
  struct OpenOptions {
    Env* env = &Env::Default();
    int lock_timeout_ms = 0;    // 0: the policy's
    size_t cache_bytes = 0;     // decoded blocks; 0: the policy's
    std::string purpose = "reader";  // what the session's registration tells others
  };
  struct CreateOptions {
    Env* env = &Env::Default();
    ChunkingParameters chunking;
    bool allow_network_filesystem = false;
    std::optional<uint32_t> group{};  // shared with it; else its user's alone (env.h, ShareLikeItsDirectory)
  };
  // EEXIST: there is a library, or a directory that is not empty. EPERM: who asks is not in the group. A failed Create leaves nothing behind.
  static Status Create(const std::string& path, const CreateOptions& options);
  // ENOENT: no library there. EPROTONOSUPPORT: a newer format or an unknown incompatible feature.
  static Result<std::shared_ptr<Library>> Open(const std::string& path, const OpenOptions& options);
  ~Library();

  const std::string& path() const { return path_; }
  const Format& format() const { return format_; }
  const Policy& policy() const { return policy_; }
  Env& env() const { return env_; }

  std::shared_ptr<const Snapshot> snapshot() const;
  Result<bool> Refresh();                 // true: refs.log had grown and the snapshot was swapped
  bool LogHasGrown() const;               // cheap: compares the size of refs.log
  // Reads through whatever snapshot is current.
  const ObjectReader& objects() const;
  const ContentReader& contents() const;
  const MapReader& trees() const;         // ObjectKind::kTree
  const MapReader& links() const;         // ObjectKind::kLinks
  ChunkStore& chunks() const;

  // A writer's staging place. `purpose` is what waiters are told: "import of debian".
  Result<std::unique_ptr<Transaction>> Begin(std::string purpose);

  // Moves refs that need no new objects, atomically, compare-and-swap on each `from`. EAGAIN: a ref was not where `from`
  // says. ENOENT: a version that a ref would name was removed by gc. `check`, if given, runs under the lock against the newest state and may refuse.
  using Check = std::function<Status(const Snapshot& newest)>;
  Status MoveRefs(const std::string& action, std::vector<RefMove> moves, const Check& check = {});

  // Keeps the version's contents from every collection while the lease lives, whatever happens to its refs. Costs the
  // shared publish lock and one empty file. ENOENT: there is no such version, or its contents were removed by gc.
  Result<VersionLease> Lease(const ObjectId& manifest);

  std::string packs_path() const { return path_ + "/packs"; }
  std::string overlays_path() const { return OverlaysPath(path_); }
  static std::string OverlaysPath(const std::string& library_path) { return library_path + "/overlays"; }
  std::string reserve_path() const { return path_ + "/reserve"; }
  std::string staging_path() const { return path_ + "/staging"; }

  struct Impl;  // store/library_impl.h: for the store alone

 private:
  friend class Transaction;
  Library(std::string path, Env& env);
  std::string path_;
  Env& env_;
  Format format_;
  Policy policy_;
  std::unique_ptr<Impl> impl_;
};

struct NewVersion {
  Manifest manifest;                    // branch must be set; time, author are filled in when zero / empty
  std::optional<ObjectId> expected_head;  // what the branch must point at; nullopt: the branch must not exist
  std::string tag;                      // empty: the next vN
};
struct Published {
  ObjectId manifest;
  std::string branch, tag;
};

// Stages objects and contents; nothing is visible before Publish, and dropping it leaves nothing (the destructor removes its
// staging directory; a killed process's is removed by the next Begin). Thread-safe but for Publish.
class Transaction final : public ChunkIndex, public ObjectWriter {
 public:
  ~Transaction() override;
  ContentWriter& contents();
  // contents().Flush(), and what was given becomes durable on a thread of its own, beside who has the tree still to write.
  Status FlushContents();
  Result<ObjectId> WriteObject(ObjectKind kind, std::string_view encoding) override;
  Status WriteContentList(const ObjectId& content, std::string_view encoding) override;
  // Staged objects first, then the snapshot it began on.
  Result<std::string> ReadObject(ObjectKind kind, const ObjectId& id) const override;
  Result<std::optional<Location>> FindChunk(const ObjectId& id) const override;
  const Snapshot& base() const;
  const std::string& directory() const;  // private scratch space, removed with the transaction

  // Makes the version exist. EAGAIN: the branch is not where `expected_head` says (somebody else was first). EEXIST: the tag is taken.
  // After these two, and after a wait for the lock in vain (EAGAIN too), the transaction is whole and Publish may be called again,
  // with another head or tag. Any other error sticks, and the library is as it was. EBUSY: it was repaired since Begin, and may
  // have lost what this transaction took for granted.
  Result<Published> Publish(NewVersion version);
  // Gives the library what is staged, with no version that names it: objects and contents that versions name which are
  // there, and which it had lost. Errors as Publish's.
  Status Restore();
  // Whether anything is staged that the library has not. Contents that are still being written do not count.
  bool HasStaged() const;
  // Bytes this transaction adds to the library (packs, as staged).
  uint64_t staged_bytes() const;

 private:
  friend class Library;
  Transaction();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// "user@host" of this process.
std::string WhoAmI();

}  // namespace mirage
