#include "indexer/entry_spool.h"

#include <cstring>

#include "indexer/scratch_bytes.h"

namespace mirage {
namespace {

// Scratch bytes of this process alone: host order, no versions.
std::string Pack(const Entry& entry, const Fingerprint& fingerprint) {
  std::string out;
  out.reserve(136 + entry.target.size());
  PutScratch(out, entry.type);
  PutScratch(out, entry.mode);
  PutScratch(out, entry.uid);
  PutScratch(out, entry.gid);
  PutScratch(out, entry.mtime_sec);
  PutScratch(out, entry.mtime_nsec);
  PutScratch(out, entry.size);
  PutScratch(out, entry.rdev_major);
  PutScratch(out, entry.rdev_minor);
  PutScratch(out, entry.id);
  PutScratch(out, entry.xattrs);
  PutScratch(out, fingerprint);
  return out += entry.target;
}

Entry Unpack(std::string_view in, Fingerprint& fingerprint) {
  Entry entry;
  TakeScratch(in, entry.type);
  TakeScratch(in, entry.mode);
  TakeScratch(in, entry.uid);
  TakeScratch(in, entry.gid);
  TakeScratch(in, entry.mtime_sec);
  TakeScratch(in, entry.mtime_nsec);
  TakeScratch(in, entry.size);
  TakeScratch(in, entry.rdev_major);
  TakeScratch(in, entry.rdev_minor);
  TakeScratch(in, entry.id);
  TakeScratch(in, entry.xattrs);
  TakeScratch(in, fingerprint);
  entry.target = in;
  return entry;
}

}  // namespace

Status EntrySpool::Add(uint64_t ticket, std::string_view path, const Entry& entry, const Fingerprint& fingerprint) {
  return spool_.Add(ticket, path, Pack(entry, fingerprint));
}

Status EntrySpool::ForEach(const Visit& visit) {
  PathSpool::Cursor cursor(spool_);
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, cursor.Next());
    if (!more) return {};
    Fingerprint fingerprint;
    Entry entry = Unpack(cursor.value(), fingerprint);
    TRY(visit(cursor.path(), std::move(entry), fingerprint));
  }
}

}  // namespace mirage
