#include "mirfs/inode_record.h"

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr uint8_t kVersion = 1;
enum Flags : uint8_t { kHasLower = 1, kMayHaveData = 2, kOwnXattrs = 4, kAllFlags = 7 };
constexpr int64_t kNanoseconds = 1'000'000'000;

void PutTime(std::string* out, const struct timespec& time) {
  Put<int64_t>(out, time.tv_sec);
  Put<uint32_t>(out, static_cast<uint32_t>(time.tv_nsec));
}
struct timespec TakeTime(Decoder& in) {
  struct timespec time {};
  time.tv_sec = in.Take<int64_t>();
  time.tv_nsec = in.Take<uint32_t>();
  return time;
}
void PutText(std::string* out, std::string_view text) {
  Put<uint32_t>(out, static_cast<uint32_t>(text.size()));
  out->append(text);
}
std::string_view TakeText(Decoder& in) { return in.Bytes(in.Take<uint32_t>()); }

}  // namespace

InodeRecord RecordOfLower(const Entry& entry, std::string origin, uint32_t nlink) {
  InodeRecord record;
  record.type = entry.type;
  record.mode = entry.mode;
  record.uid = entry.uid;
  record.gid = entry.gid;
  record.nlink = nlink;
  record.rdev_major = entry.rdev_major;
  record.rdev_minor = entry.rdev_minor;
  record.mtime = {entry.mtime_sec, entry.mtime_nsec};
  record.ctime = record.atime = record.mtime;
  record.lower = entry;
  record.origin = std::move(origin);
  if (entry.type == FileType::kRegular) record.lower_valid = entry.size;
  return record;
}

std::string EncodeInodeRecord(const InodeRecord& record) {
  std::string out;
  const int flags = (record.lower ? kHasLower : 0) | (record.may_have_data ? kMayHaveData : 0) |
                    (record.own_xattrs ? kOwnXattrs : 0);
  Put<uint8_t>(&out, kVersion);
  Put<uint8_t>(&out, static_cast<uint8_t>(record.type));
  Put<uint8_t>(&out, static_cast<uint8_t>(flags));
  Put<uint16_t>(&out, record.mode);
  for (const uint32_t value : {record.uid, record.gid, record.nlink, record.rdev_major, record.rdev_minor}) {
    Put<uint32_t>(&out, value);
  }
  for (const auto* time : {&record.mtime, &record.ctime, &record.atime}) PutTime(&out, *time);
  Put<uint64_t>(&out, record.lower_valid);
  PutText(&out, record.target);
  if (record.lower) {
    PutText(&out, record.origin);
    PutText(&out, EncodeEntry(*record.lower));
  }
  if (record.own_xattrs) {
    Put<uint32_t>(&out, static_cast<uint32_t>(record.xattrs.size()));
    for (const auto& [name, value] : record.xattrs) {
      PutText(&out, name);
      PutText(&out, value);
    }
  }
  return out;
}

Result<InodeRecord> DecodeInodeRecord(std::string_view bytes) {
  Decoder in(bytes);
  InodeRecord record;
  const auto version = in.Take<uint8_t>();
  if (in.ok() && version != kVersion) return Fail(EPROTONOSUPPORT, "overlay: inode record of version {}", version);
  record.type = static_cast<FileType>(in.Take<uint8_t>());
  const auto flags = in.Take<uint8_t>();
  record.mode = in.Take<uint16_t>();
  for (uint32_t* value : {&record.uid, &record.gid, &record.nlink, &record.rdev_major, &record.rdev_minor}) {
    *value = in.Take<uint32_t>();
  }
  bool sound = record.mode <= 07777 && (flags & ~kAllFlags) == 0;
  for (auto* time : {&record.mtime, &record.ctime, &record.atime}) {
    *time = TakeTime(in);
    sound &= time->tv_nsec < kNanoseconds;
  }
  record.lower_valid = in.Take<uint64_t>();
  record.target = TakeText(in);
  record.may_have_data = flags & kMayHaveData;
  record.own_xattrs = flags & kOwnXattrs;
  if (flags & kHasLower) {
    record.origin = TakeText(in);
    ASSIGN_OR_RETURN(record.lower, DecodeEntry(TakeText(in)));
  }
  if (record.own_xattrs) {
    for (auto left = in.Take<uint32_t>(); left > 0 && in.ok(); --left) {
      const std::string_view name = TakeText(in), value = TakeText(in);
      sound &= record.xattrs.empty() || record.xattrs.rbegin()->first < name;
      record.xattrs.emplace_hint(record.xattrs.end(), name, value);
    }
  }
  if (!in.AtEnd() || !sound || record.type < FileType::kRegular || record.type > FileType::kSocket) {
    return Fail(EIO, "overlay: damaged inode record");
  }
  return record;
}

}  // namespace mirage
