// Rows that lie on the disk: keys to values, changed in atomic batches, read at once and in key order.
//
// A batch is a record of the log (row_log.h), and its rows are kept in memory (row_buffer.h); so a change costs its caller one write(2)
// and one insertion: 2 us, where a RocksDB took 19. When the rows have become many they are sealed, and a thread of the store's
// writes them to a table (row_table.h); few overlays ever have one. Tables are merged so that each is at least twice as long as the
// next: of n rows there are log n. A row is looked for in memory, among the sealed, and in the tables, from the newest. It is
// a log-structured merge tree (O'Neil et al., 1996), with the ends of it that an overlay needs.
//
//   log.<n>             what the tables do not hold
//   rows.<first>-<last> a table of what batches first to last changed. One whose batches another holds too was merged into it
//   rows.new            a table that is being written
//
// A batch is in the log (page cache) when Write returns: it survives this process; Sync makes it survive a power cut. Batches
// survive as a prefix of the order of their writes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "store/env.h"
#include "store/result.h"

namespace mirage {

// Thread-safe, but for Open.
class RowStore {
 public:
  class Batch {
   public:
    Batch();
    void Put(std::string_view key, std::string_view value);  // keys are shorter than 64 KiB; a batch of a GiB is EFBIG
    void Delete(std::string_view key);

   private:
    friend class RowStore;
    std::string record_;  // of the log
  };
  // When rows go from memory to the tables.
  struct Limits {
    size_t table_bytes = 16 << 20;  // of rows, before they are sealed; three times as much may wait behind
    size_t log_bytes = 64 << 20;    // of a segment of the log; likewise
  };

  // In the directory `path`, with `create` a new one. Starts no thread. EIO: it is damaged.
  static Result<std::unique_ptr<RowStore>> Open(Env& env, const std::string& path, bool create, const Limits& limits);
  ~RowStore();

  Status Write(Batch& batch);  // atomic; ENOSPC, EIO
  // Called when a write found the disk full, before it is tried once more.
  void OnFullDisk(std::function<void()> make_room);
  // Called before what was written is synced, on the thread and with the locks of whoever syncs, or on a thread of the store's
  // that holds none; its error is the sync's.
  void BeforeSync(std::function<Status()> prepare);
  // A store of its own at `path` (a new directory), with all that was written before.
  Status CopyTo(const std::string& path) const;
  // The number of the last write. SyncTo(n): write n and all before it are on the disk when it returns. What the log could not
  // keep goes to a table.
  uint64_t sequence() const;
  Status SyncTo(uint64_t sequence);

  Result<std::optional<std::string>> Get(std::string_view key) const;
  // The rows whose keys begin so, in key order, until `visit` returns false or an error. It may call the store.
  Status Scan(std::string_view prefix,
              const std::function<Result<bool>(std::string_view key, std::string_view value)>& visit) const;

 private:
  struct Impl;
  explicit RowStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
