// What library.cc and transaction.cc share; not for others.
#pragma once

#include <atomic>
#include <mutex>

#include "store/library.h"

namespace mirage {

// Reads through the library's current snapshot.
class CurrentIndex final : public ChunkIndex {
 public:
  explicit CurrentIndex(const Library& library) : library_(library) {}
  Result<std::string> ReadObject(ObjectKind kind, const ObjectId& id) const override {
    return library_.snapshot()->ReadObject(kind, id);
  }
  Result<std::optional<Location>> FindChunk(const ObjectId& id) const override {
    return library_.snapshot()->FindChunk(id);
  }

 private:
  const Library& library_;
};

// A directory of one writer's own under staging/. While the lock is held nobody sweeps it.
struct StagingDirectory {
  std::string path;
  FileLock lock;
  // The caller holds locks/staging.
  static Result<StagingDirectory> Make(Env& env, const std::string& library_path, std::string_view purpose);
};

struct Library::Impl {
  Impl(Library& library, size_t cache_bytes)
      : log(library.env_, library.path_ + "/refs.log"),
        index(library),
        chunks(library.env_, library.packs_path(), {.cache_bytes = cache_bytes}),
        contents(index, chunks),
        trees(index, ObjectKind::kTree, 16 << 20),
        links(index, ObjectKind::kLinks, 2 << 20) {}

  RefLog log;
  CurrentIndex index;
  mutable ChunkStore chunks;
  ContentReader contents;
  MapReader trees, links;
  int lock_timeout_ms = 0;
  std::string purpose;

  mutable std::mutex mutex;  // guards snapshot
  std::shared_ptr<const Snapshot> snapshot;
  std::shared_ptr<LibrarySession> session;  // null where nothing can be written

  // The lock of FORMAT.md's publish protocol. The turnstile keeps a stream of readers from starving a writer.
  static Result<FileLock> LockPublish(const Library& library, LockMode mode, std::string_view purpose);
  static std::string SessionsPath(const Library& library) { return library.path_ + "/locks/sessions"; }
  static std::string SessionName(const Library& library) {  // empty: it has none
    return library.impl_->session ? library.impl_->session->name() : "";
  }
  // Opens the database and replays the rest of refs.log. The caller holds the publish lock.
  static Result<std::shared_ptr<const Snapshot>> LoadSnapshot(const Library& library);
  // The same after it failed with EIO: a record that a power cut tore off the end of RocksDB's own log is cut off first. The
  // caller holds the exclusive lock.
  static Result<std::shared_ptr<const Snapshot>> RecoverSnapshot(const Library& library);
  // `snapshot` with the records behind it applied: its refs are the newest, its objects may be older.
  static Result<std::shared_ptr<const Snapshot>> ReplayRefs(const Library& library, const Snapshot& snapshot);
  // `fresh`: the database was opened under the lock that is held, so that it knows of every collection.
  static Result<std::shared_ptr<const Snapshot>> Replay(const Library& library, const Snapshot& snapshot, bool fresh);
  static void Apply(const RefRecord& record, std::map<std::string, std::optional<Ref>>* refs,
                    std::map<std::string, uint64_t>* highest);
  // The newest refs and the newest objects; opens the database if anything was published since. The caller holds the
  // publish lock.
  static Result<std::shared_ptr<const Snapshot>> NewestSnapshot(const Library& library, const Snapshot& snapshot);
  static Status Register(Library& library);
  // A new directory under staging/; those of dead processes are removed.
  static Result<StagingDirectory> MakeStaging(const Library& library, std::string_view purpose);
  // Appends a record of `moves` onto `newest`, after compare-and-swap. The caller holds the exclusive lock.
  static Status AppendMoves(const Library& library, const Snapshot& newest, const std::string& action,
                            std::vector<RefMove> moves);
  // Without moves: readers are to look for other rows.
  static Status AppendRecord(Env& env, const std::string& library_path, const LogPosition& at, const std::string& action,
                             std::vector<RefMove> moves);
  static const MetadataDb& Database(const Snapshot& snapshot) { return *snapshot.db_; }
  // Whether rows came or went that the snapshot's database does not know of.
  static bool IsStale(const Snapshot& snapshot) { return snapshot.rows_moved_; }
  static const std::map<std::string, std::optional<Ref>>& Tail(const Snapshot& s) { return s.tail_; }
  static const std::map<std::string, uint64_t>& TailHighest(const Snapshot& s) { return s.tail_highest_; }
};

// N of a tag "vN" in its one spelling; nothing for any other tag.
std::optional<uint64_t> VersionNumber(std::string_view tag);
std::string RandomHex(size_t bytes);
void Now(int64_t* seconds, uint32_t* nanoseconds);

}  // namespace mirage
