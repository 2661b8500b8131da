// RocksDB as the library uses it; seen by metadata_db.cc and sorted_runs.cc alone.
#pragma once

#include <rocksdb/options.h>
#include <rocksdb/status.h>

#include "store/result.h"
#include "store/rocksdb_env.h"

namespace mirage {

// One block cache a process; automatic compaction off; no info log. `env` outlives what is opened with them.
rocksdb::Options LibraryDbOptions(const RocksDbEnv& env);
tl::unexpected<Error> FailRocksDb(const rocksdb::Status& status, std::string_view doing);

}  // namespace mirage
