// The end of RocksDB's MANIFEST after a power cut. A record that was being written then may be there in part, with zeros where
// its other bytes were due. RocksDB takes a record that ends too early for the end of its log, but zeros for corruption, and
// does not open. Nobody was told that such a record is durable, so it may be cut off.
//
// Not a repair: a record whose end is not zeros is damage, and fsck's.
#pragma once

#include <string>

#include "store/env.h"

namespace mirage {

// Cuts a torn record off the end of the newest MANIFEST of the database at `path`, and syncs it; false: there is none. To be
// called if the database does not open, by who holds the publish lock exclusively and has seen it fail under that lock.
// The records' format is that of RocksDB's log files: blocks of 32 KiB of fragments, each with a checksum, its length and type.
Result<bool> CutTornTail(Env& env, const std::string& path);

}  // namespace mirage
