// What fsck makes anew: RocksDB's rows from the packs, and packs from what checks in damaged ones. Everything is made
// in a scratch directory under staging/, which a dead process leaves to the next writer to sweep. For fsck.cc alone.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/file_lock.h"
#include "store/metadata_db.h"

namespace mirage {

// A directory of one check's own, removed with the object.
class ScratchDirectory {
 public:
  // Locked, under the library's staging/: what is made there can be renamed into the library.
  static Result<std::unique_ptr<ScratchDirectory>> Create(Env& env, const std::string& library_path,
                                                          int lock_timeout_ms);
  // In $TMPDIR, else /var/tmp: for a check of a library whose disk is full.
  static Result<std::unique_ptr<ScratchDirectory>> CreateElsewhere(Env& env);
  ~ScratchDirectory();
  const std::string& path() const { return path_; }
  // A new directory in it.
  Result<std::string> Make(const std::string& name);

 private:
  ScratchDirectory(Env& env, std::string path, std::optional<FileLock> lock)
      : env_(env), path_(std::move(path)), lock_(std::move(lock)) {}
  Env& env_;
  std::string path_;
  std::optional<FileLock> lock_;
};

struct PackScan {
  uint64_t packs = 0, blocks = 0, objects = 0, chunks = 0;
  std::vector<std::string> damaged;             // names of packs that have damage
  std::vector<std::string> strangers;           // names in packs/ that are not a pack's
  std::map<PackNumber, uint64_t> bytes_before;  // of the packs with smaller numbers
  uint64_t total_bytes = 0;
};
// Reads every pack, checks every block and every object's hash, and puts what checks into `rows`, as RocksDB has it.
// Packs in `condemned` are passed over: they are nobody's.
Result<PackScan> ScanPacks(Env& env, const std::string& packs_path, std::string_view uuid,
                           const std::map<PackNumber, uint64_t>& condemned, SortedRuns* rows,
                           const std::function<void(std::string what)>& damaged,
                           const std::function<void(uint64_t done, uint64_t total)>& progress);

// Packs in a scratch directory, of blocks of damaged packs and of objects that have no pack.
class PackSalvage {
 public:
  PackSalvage(Env& env, const std::string& scratch, std::string uuid);
  ~PackSalvage();
  // What checks in a damaged pack; its frames are copied as they are.
  Status AddPack(const std::string& path, PackNumber number);
  Status AddObject(ObjectKind kind, const ObjectId& id, std::string_view bytes);
  // Syncs the packs. Their rows go over those that ScanPacks made of the damaged packs.
  Status Finish();
  SortedRuns& rows();
  const std::vector<std::string>& names() const;  // of the finished packs, in `scratch`
  uint64_t objects() const;                       // salvaged, chunks among them

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
