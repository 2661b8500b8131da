// Typed access to the library's RocksDB. It is a cache with an order: everything in it can be rebuilt from packs and
// refs.log. One process writes, and only for the moment of a publish; readers open a read-only instance and swap it for
// a new one to see more. Keys and values: FORMAT.md, "RocksDB". The only files that include RocksDB: metadata_db.cc,
// sorted_runs.cc, rocksdb_env.cc (and the overlay's own database in mirfs/). All of it goes the way of `env`.
//
// Who opens holds locks/publish: shared for ReadOnly::Open (for the moment of opening alone: with max_open_files=-1 every
// file stays open, so that unlinked files stay readable), exclusive for as long as a MetadataWriter lives.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/env.h"
#include "store/object.h"
#include "store/pack.h"
#include "store/result.h"

namespace mirage {

struct Ref {
  ObjectId manifest;
  uint64_t sequence = 0;  // of the record that set it first to this manifest
  int64_t time_sec = 0;   // of that record
  bool operator==(const Ref&) const = default;
};
// How far RocksDB has caught up with refs.log.
struct LogPosition {
  uint64_t sequence = 0;   // of the last record applied
  uint64_t offset = 0;     // of the byte behind it
  ObjectId chain;          // its chained checksum
  bool operator==(const LogPosition&) const = default;
};

class MetadataDb {
 public:
  static Status Create(Env& env, const std::string& path);
  static Result<std::unique_ptr<MetadataDb>> OpenReadOnly(Env& env, const std::string& path);
  ~MetadataDb();

  // Thread-safe, lock-free.
  Result<std::optional<std::string>> Get(ObjectKind kind, const ObjectId& id) const;
  Result<LogPosition> Position() const;
  Result<std::optional<Ref>> GetRef(const std::string& name) const;
  // Refs without a slash in their name: branches. Costs a seek each, however many tags they have.
  Result<std::map<std::string, Ref>> Branches() const;
  // Refs whose name begins with `prefix`, sorted by name.
  Result<std::map<std::string, Ref>> Refs(const std::string& prefix) const;
  Result<uint64_t> HighestVersion(const std::string& branch) const;  // the greatest N of a vN ever given
  Result<uint64_t> Generation() const;  // how often the library was collected, or this database made anew
  Result<uint64_t> MadeIn() const;      // the generation in which a repair made it anew; 0: none did
  Result<std::map<PackNumber, uint64_t>> Condemned() const;  // packs that wait for deletion, and since which generation
  Status ForEach(ObjectKind kind, const std::function<Status(const ObjectId&, std::string_view)>& visit) const;
  // Ids that begin with the given hex digits, at most `limit`.
  Result<std::vector<ObjectId>> IdsWithPrefix(ObjectKind kind, std::string_view hex, size_t limit) const;
  // Reads every block of every file and checks it against RocksDB's own checksum.
  Status VerifyChecksums() const;
  // Objects and chunk locations of this database beside those of `other`, in key order: for each the values, nullopt
  // where one has none. Memory: a block each.
  using VisitPair = std::function<Status(ObjectKind kind, const ObjectId& id, std::optional<std::string_view> here,
                                         std::optional<std::string_view> there)>;
  Status Compare(const MetadataDb& other, const VisitPair& visit) const;
  struct Shape {
    uint64_t level0_files = 0, files = 0, bytes = 0;
  };
  Shape shape() const;
  // Equal for two instances only if they hold the same rows.
  std::string StateToken() const;
  std::map<PackNumber, int> PackLevels() const;  // zstd levels that packs were rewritten at; a hint

 private:
  struct Impl;
  explicit MetadataDb(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The short exclusive writer. Automatic compaction is off: it would start at every open and be thrown away at the close.
class MetadataWriter {
 public:
  static Result<std::unique_ptr<MetadataWriter>> Open(Env& env, const std::string& path);
  ~MetadataWriter();
  // Takes over SST files (moved into the database; durable when it returns).
  Status Ingest(const std::vector<std::string>& sst_paths);
  // Refs (nullopt: deleted), version counters and the position they stand for; one atomic, durable write.
  Status CatchUp(const std::map<std::string, std::optional<Ref>>& refs, const std::map<std::string, uint64_t>& highest,
                 const LogPosition& position);
  // Durable when it returns: these packs are no longer condemned, for they are gone.
  Status ForgetPacks(const std::vector<PackNumber>& packs);
  Result<uint64_t> Generation() const;
  std::string StateToken() const;  // as MetadataDb's
  // Rewrites all tables, without what was deleted from them. Takes as long as the database is large.
  Status CompactAll();
  // Says of a database made anew in which generation, and the condemned packs; durable when it returns.
  Status MakeIn(uint64_t generation, const std::map<PackNumber, uint64_t>& condemned);
  // One bounded piece of compaction if the shape calls for it; returns whether another piece is due.
  Result<bool> CompactPiece();

 private:
  explicit MetadataWriter(Env& env);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Rows and deletions in ascending order of kind and id, as SST files for one Ingest.
class RowFiles {
 public:
  RowFiles(Env& env, std::string prefix);
  ~RowFiles();
  Status Put(ObjectKind kind, const ObjectId& id, std::string_view value);
  Status Delete(ObjectKind kind, const ObjectId& id);
  Result<std::vector<std::string>> Finish();  // their paths; synced

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};
// What a collection says of itself, as one SST file: the generation, and in it the packs condemned, and the hints of PackLevels.
Status WriteCollectionRows(Env& env, const std::string& path, uint64_t generation, const std::vector<PackNumber>& condemned,
                           const std::map<PackNumber, int>& levels);

// Objects and locations of a transaction: in memory, spilled to sorted files when they grow, written out at the end as
// SST files that do not overlap. Not thread-safe.
class SortedRuns {
 public:
  SortedRuns(Env& env, std::string directory, size_t memory_bytes);
  ~SortedRuns();
  Status Put(ObjectKind kind, const ObjectId& id, std::string value);  // a repeated key is ignored
  bool empty() const;
  Result<std::optional<std::string>> Get(ObjectKind kind, const ObjectId& id) const;  // spilled ones too
  // All pairs in key order: (kind and id, value).
  Status Visit(const std::function<Status(std::string_view key, std::string_view value)>& visit);
  Result<std::vector<std::string>> Finish();  // paths of the SST files, synced
 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
