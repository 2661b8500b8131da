// RocksDB on the store's road to the disk (env.h): so that a fault injected there meets RocksDB's writes and syncs too, and
// its place in the order of durability can be tested. Over Env::Default() it is RocksDB's own rocksdb::Env, at no cost.
// Seen by the files that speak to RocksDB alone.
#pragma once

#include <memory>

#include <rocksdb/env.h>

#include "store/env.h"

namespace mirage {

// `env` outlives it, and it outlives every database, writer and reader opened with it.
class RocksDbEnv {
 public:
  explicit RocksDbEnv(Env& env);
  RocksDbEnv(const RocksDbEnv&) = delete;
  RocksDbEnv& operator=(const RocksDbEnv&) = delete;
  rocksdb::Env* get() const { return owned_ ? owned_.get() : rocksdb::Env::Default(); }

 private:
  std::unique_ptr<rocksdb::Env> owned_;
};

}  // namespace mirage
