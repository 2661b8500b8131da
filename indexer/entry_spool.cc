#include "indexer/entry_spool.h"

#include <cstring>

namespace mirage {
namespace {

template <typename T>
void Put(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
template <typename T>
void Take(std::string_view& in, T& value) {
  std::memcpy(&value, in.data(), sizeof value);
  in.remove_prefix(sizeof value);
}

// Scratch bytes of this process alone: host order, no versions.
std::string Pack(const Entry& entry) {
  std::string out;
  out.reserve(120 + entry.target.size());
  Put(out, entry.type);
  Put(out, entry.mode);
  Put(out, entry.uid);
  Put(out, entry.gid);
  Put(out, entry.mtime_sec);
  Put(out, entry.mtime_nsec);
  Put(out, entry.size);
  Put(out, entry.rdev_major);
  Put(out, entry.rdev_minor);
  Put(out, entry.id);
  Put(out, entry.xattrs);
  return out += entry.target;
}

Entry Unpack(std::string_view in) {
  Entry entry;
  Take(in, entry.type);
  Take(in, entry.mode);
  Take(in, entry.uid);
  Take(in, entry.gid);
  Take(in, entry.mtime_sec);
  Take(in, entry.mtime_nsec);
  Take(in, entry.size);
  Take(in, entry.rdev_major);
  Take(in, entry.rdev_minor);
  Take(in, entry.id);
  Take(in, entry.xattrs);
  entry.target = in;
  return entry;
}

}  // namespace

Status EntrySpool::Add(uint64_t ticket, std::string_view path, const Entry& entry) {
  return spool_.Add(ticket, path, Pack(entry));
}

Status EntrySpool::ForEach(const Visit& visit) {
  PathSpool::Cursor cursor(spool_);
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, cursor.Next());
    if (!more) return {};
    TRY(visit(cursor.path(), Unpack(cursor.value())));
  }
}

}  // namespace mirage
