// RocksDB on the store's road to the disk (env.h): so that a fault injected there meets RocksDB's writes and syncs too, and
// its place in the order of durability can be tested. Over Env::Default() it is RocksDB's own rocksdb::Env, at no cost,
// but that what it makes is shared as all of a library is. Seen by the files that speak to RocksDB alone.
//
// It also stands between RocksDB and a fault of its own: when a record cannot be written to its MANIFEST, an ingest takes its
// tables away again, though the record may be on the disk, whole, and then the database does not open: it names tables that are
// gone. So a writer keeps every file until it knows that all went well. What is kept in vain, RocksDB removes itself when
// it is opened for writing the next time.
#pragma once

#include <memory>

#include <rocksdb/env.h>

#include "store/env.h"

namespace mirage {

// `env` outlives it, and it outlives every database, writer and reader opened with it.
class RocksDbEnv {
 public:
  enum class Removal { kAtOnce, kWhenLet };
  explicit RocksDbEnv(Env& env, Removal removal = Removal::kAtOnce);
  ~RocksDbEnv();
  RocksDbEnv(const RocksDbEnv&) = delete;
  RocksDbEnv& operator=(const RocksDbEnv&) = delete;
  rocksdb::Env* get() const { return owned_.get(); }
  // With kWhenLet: from now on nothing is removed, and each removal is said to be done; or removals are done again.
  void HoldRemovals();
  void LetRemove();

 private:
  class Keeper;
  std::shared_ptr<Keeper> keeper_;
  std::unique_ptr<rocksdb::Env> owned_;
};

}  // namespace mirage
