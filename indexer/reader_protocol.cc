#include "indexer/reader_protocol.h"

#include <algorithm>

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr uint32_t kNanoseconds = 1'000'000'000;
constexpr size_t kMaxTextBytes = 1024;  // of what is shown to a user
constexpr size_t kMaxAttributes = 65536;

void PutText(std::string* out, std::string_view text) {
  Put<uint32_t>(out, static_cast<uint32_t>(text.size()));
  out->append(text);
}
std::string TakeText(Decoder& in) {
  const uint32_t length = in.Take<uint32_t>();
  return std::string(in.Bytes(length));
}
// Text that an image chose, made fit to be shown.
std::string TakeShown(Decoder& in) {
  std::string text = TakeText(in);
  text.resize(std::min(text.size(), kMaxTextBytes));
  for (char& c : text) {
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

tl::unexpected<Error> Impossible(std::string_view what) {
  return Fail(EIO, "the disk reader sent {}; the image may be made to do harm", what);
}

}  // namespace

bool IsCleanPath(std::string_view path) {
  if (path.size() > kMaxPathBytes) return false;
  if (path.empty()) return true;
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string_view name = path.substr(start, end - start);
    if (name.empty() || name == "." || name == ".." || name.size() > kMaxNameBytes ||
        name.find('\0') != std::string_view::npos) {
      return false;
    }
    start = end + 1;
  }
  return true;
}

FilesystemKind KindOf(std::string_view type) {
  if (type == "ext2" || type == "ext3" || type == "ext4") return FilesystemKind::kExt;
  return type == "vfat" ? FilesystemKind::kFat : FilesystemKind::kOther;
}

std::string Encode(const PartitionRecord& record) {
  std::string out;
  Put<uint32_t>(&out, record.number);
  Put<uint64_t>(&out, record.offset);
  Put<uint64_t>(&out, record.size);
  Put<uint64_t>(&out, record.used_bytes);
  Put<int64_t>(&out, record.made_sec);
  for (const std::string* text : {&record.type, &record.uuid, &record.label, &record.part_uuid, &record.obstacle}) {
    PutText(&out, *text);
  }
  return out;
}

Result<PartitionRecord> DecodePartition(std::string_view payload) {
  Decoder in(payload);
  PartitionRecord record;
  record.number = in.Take<uint32_t>();
  record.offset = in.Take<uint64_t>();
  record.size = in.Take<uint64_t>();
  record.used_bytes = in.Take<uint64_t>();
  record.made_sec = in.Take<int64_t>();
  for (std::string* text : {&record.type, &record.uuid, &record.label, &record.part_uuid, &record.obstacle}) {
    *text = TakeShown(in);
  }
  if (!in.AtEnd()) return Impossible("an impossible partition");
  return record;
}

std::string Encode(const EntryRecord& record) {
  std::string out;
  const Entry& entry = record.entry;
  Put<uint8_t>(&out, static_cast<uint8_t>(entry.type));
  Put<uint16_t>(&out, entry.mode);
  Put<uint32_t>(&out, entry.uid);
  Put<uint32_t>(&out, entry.gid);
  Put<int64_t>(&out, entry.mtime_sec);
  Put<uint32_t>(&out, entry.mtime_nsec);
  Put<uint64_t>(&out, entry.size);
  Put<uint32_t>(&out, entry.rdev_major);
  Put<uint32_t>(&out, entry.rdev_minor);
  Put<uint64_t>(&out, record.inode);
  Put<int64_t>(&out, record.ctime_sec);
  Put<uint32_t>(&out, record.ctime_nsec);
  PutText(&out, record.path);
  PutText(&out, record.target);
  Put<uint32_t>(&out, static_cast<uint32_t>(record.xattrs.size()));
  for (const auto& [name, value] : record.xattrs) {
    PutText(&out, name);
    PutText(&out, value);
  }
  return out;
}

Result<EntryRecord> DecodeEntryRecord(std::string_view payload) {
  Decoder in(payload);
  EntryRecord record;
  Entry& entry = record.entry;
  const uint8_t type = in.Take<uint8_t>();
  entry.mode = in.Take<uint16_t>();
  entry.uid = in.Take<uint32_t>();
  entry.gid = in.Take<uint32_t>();
  entry.mtime_sec = in.Take<int64_t>();
  entry.mtime_nsec = in.Take<uint32_t>();
  entry.size = in.Take<uint64_t>();
  entry.rdev_major = in.Take<uint32_t>();
  entry.rdev_minor = in.Take<uint32_t>();
  record.inode = in.Take<uint64_t>();
  record.ctime_sec = in.Take<int64_t>();
  record.ctime_nsec = in.Take<uint32_t>();
  record.path = TakeText(in);
  record.target = TakeText(in);
  const uint32_t count = in.Take<uint32_t>();
  if (count > kMaxAttributes) return Impossible("too many attributes");
  for (uint32_t i = 0; i < count && in.ok(); ++i) {
    std::string name = TakeText(in);
    record.xattrs[std::move(name)] = TakeText(in);
  }
  if (!in.AtEnd() || type < static_cast<uint8_t>(FileType::kRegular) ||
      type > static_cast<uint8_t>(FileType::kSocket) || entry.mode > 07777 || entry.mtime_nsec >= kNanoseconds ||
      record.ctime_nsec >= kNanoseconds || entry.size > kMaxFileSize || !IsCleanPath(record.path)) {
    return Impossible("an impossible entry");
  }
  entry.type = static_cast<FileType>(type);
  const bool device = entry.type == FileType::kCharDevice || entry.type == FileType::kBlockDevice;
  if ((!device && (entry.rdev_major != 0 || entry.rdev_minor != 0)) ||
      (entry.type != FileType::kRegular && entry.size != 0) ||
      (entry.type == FileType::kSymlink) != !record.target.empty() || record.target.find('\0') != std::string::npos ||
      (entry.type != FileType::kDirectory && record.path.empty())) {
    return Impossible("an impossible entry");
  }
  for (const auto& [name, value] : record.xattrs) {
    if (name.empty() || name.find('\0') != std::string::npos) return Impossible("an impossible attribute");
  }
  return record;
}

std::string Encode(const std::vector<Extent>& extents) {
  std::string out;
  for (const Extent& extent : extents) {
    Put<uint64_t>(&out, extent.logical);
    Put<uint64_t>(&out, extent.physical);
    Put<uint64_t>(&out, extent.length);
  }
  return out;
}

Result<std::vector<Extent>> DecodeExtents(std::string_view payload) {
  constexpr size_t kBytes = 3 * sizeof(uint64_t);
  if (payload.size() % kBytes != 0 || payload.size() / kBytes > kMaxExtentsInRecord) {
    return Impossible("impossible extents");
  }
  std::vector<Extent> extents(payload.size() / kBytes);
  Decoder in(payload);
  for (Extent& extent : extents) {
    extent.logical = in.Take<uint64_t>();
    extent.physical = in.Take<uint64_t>();
    extent.length = in.Take<uint64_t>();
  }
  return extents;
}

std::string Encode(const LinkRecord& record) {
  std::string out;
  PutText(&out, record.path);
  PutText(&out, record.first);
  return out;
}

Result<LinkRecord> DecodeLink(std::string_view payload) {
  Decoder in(payload);
  LinkRecord record;
  record.path = TakeText(in);
  record.first = TakeText(in);
  if (!in.AtEnd() || record.path.empty() || record.first.empty() || !IsCleanPath(record.path) ||
      !IsCleanPath(record.first)) {
    return Impossible("an impossible link");
  }
  return record;
}

std::string Encode(const LookupRecord& record) {
  std::string out;
  Put<uint8_t>(&out, record.type);
  PutText(&out, record.path);
  return out;
}

Result<LookupRecord> DecodeLookup(std::string_view payload) {
  Decoder in(payload);
  LookupRecord record;
  record.type = in.Take<uint8_t>();
  record.path = TakeText(in);
  if (!in.AtEnd() || record.type > static_cast<uint8_t>(FileType::kSocket)) return Impossible("an impossible answer");
  return record;
}

std::string Encode(const ProblemRecord& record) {
  std::string out;
  Put<uint32_t>(&out, static_cast<uint32_t>(record.code));
  PutText(&out, record.text);
  return out;
}

Result<ProblemRecord> DecodeProblem(std::string_view payload) {
  Decoder in(payload);
  ProblemRecord record;
  const uint32_t code = in.Take<uint32_t>();
  record.text = TakeShown(in);
  if (!in.AtEnd()) return Impossible("an impossible error");
  record.code = code == EINVAL || code == EOPNOTSUPP || code == ENOMEM ? static_cast<int>(code) : EIO;
  return record;
}

}  // namespace mirage
