// An Env in which the process stops, the power goes, the disk fills up or a sector fails, at a chosen operation.
//
// It works on the real disk below one directory, and beside that keeps what a power cut would leave of it. Each operation that
// changes something is numbered from 1: write, truncate, sync, create, rename, link, remove, make and remove a directory,
// sync a directory. RocksDB's come the same way (store/rocksdb_env.h). Nothing is really synced: a test is no longer than its
// arithmetic.
//
// The model of the disk, from POSIX, narrowed by what ext4, xfs and btrfs do:
//   - A file's bytes and size are safe when the file was synced (fdatasync); its name is not, before its directory was synced.
//   - A name's coming, going and changing are safe when the directory it lies in was synced. A rename between two directories
//     is in one journal transaction: a sync of either makes the new name safe; the old name is gone for certain only with
//     a sync of its own directory, so that both may stand after a cut.
//   - Unsynced changes of names survive as a prefix, in their order (one journal). Unsynced writes to a file survive as a prefix
//     too; the last of them may be torn, and where it made the file longer there may be zeros where its bytes were due.
//     Names and bytes know nothing of each other: a new name may stand with nothing in the file, and a rename over
//     an old file may leave an empty one, if the new one was not synced.
//   - A sync that failed lost what it should have written: the pages are clean, the next sync succeeds and does not write them.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "store/env.h"

namespace mirage::testing {

class FaultEnv final : public Env {
 public:
  // What is lost at the stop.
  enum class Loss {
    kNothing,        // the process was killed, the machine lives on
    kUnsynced,       // every name and byte that was not synced
    kUnsyncedBytes,  // the names were all journalled, the bytes behind them not written
    kSome,           // by the seed: a prefix of the names, a prefix of each file's writes, the last one torn
  };
  enum class Kind { kCreate, kWrite, kTruncate, kSync, kRename, kLink, kUnlink, kMakeDirectory, kRemoveDirectory, kSyncDirectory };
  struct Operation {
    uint64_t number = 0;
    Kind kind = Kind::kWrite;
    std::string path;  // from the root; for a rename or link the new name
  };

  // What lies below `root` is safe already. Paths elsewhere are passed on and not counted.
  explicit FaultEnv(std::string root);
  ~FaultEnv() override;

  uint64_t operations() const;  // numbered so far
  // Operation `number` and everything behind it, reads too, fails: this process is dead. 0: never.
  void StopAt(uint64_t number);
  bool stopped() const;
  // Operation `number` fails with `code`, once. ENOSPC at a write leaves half of it.
  void FailAt(uint64_t number, int code);
  // From operation `number` on the disk is full: all that needs room fails with ENOSPC; cutting, removing, syncing does not.
  void FillAt(uint64_t number);
  bool failed() const;  // a FailAt or FillAt has struck
  void Heal();          // no more faults
  // Called before each operation, under the env's lock; empty: none.
  void Watch(std::function<void(const Operation&)> watcher);
  // What a power cut now would not keep: "packs/x.pack" (bytes), "packs/ y.pack" (a name in packs). To be called by a watcher.
  std::vector<std::string> Unsynced() const;

  // The machine starts again: the directory holds what survives, all of it safe now; no faults. Everything opened through
  // the env is closed by then.
  void Restart(Loss loss, uint64_t seed);

  Result<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status Link(const std::string& from, const std::string& to) override;
  Status Unlink(const std::string& path) override;
  Status MakeDirectory(const std::string& path, unsigned mode) override;
  Status RemoveDirectory(const std::string& path) override;
  Status SyncDirectory(const std::string& path) override;
  Result<std::vector<std::string>> List(const std::string& path) override;
  Result<FileInfo> Stat(const std::string& path) override;

 private:
  struct Node;
  using NodeRef = std::shared_ptr<Node>;
  struct NameChange;
  class FaultFile;

  void Load();
  NodeRef LoadNode(const std::string& path);
  NodeRef Find(const std::string& path) const;
  struct Place {
    NodeRef directory;
    std::string name;
  };
  std::optional<Place> FindPlace(const std::string& path) const;
  // Numbers an operation; an error if a fault strikes. Under the mutex.
  Status Count(Kind kind, const std::string& path);
  Status CheckAlive(const std::string& path) const;
  void Change(std::vector<NameChange> changes);
  void SyncNames(const NodeRef& directory);
  std::string Below(const std::string& path) const;

  const std::string root_path_;
  mutable std::mutex mutex_;  // guards all below, and is held while the disk works
  NodeRef root_;
  std::vector<std::vector<NameChange>> journal_;  // changes of names, in order; the safe ones are taken out
  uint64_t operations_ = 0, stop_at_ = 0, fail_at_ = 0, fill_at_ = 0;
  int fail_code_ = 0;
  bool stopped_ = false, failed_ = false;
  std::function<void(const Operation&)> watcher_;
};

}  // namespace mirage::testing
