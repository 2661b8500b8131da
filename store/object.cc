#include "store/object.h"

#include <sys/stat.h>

#include <algorithm>

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kHasXattrs = 1, kTargetIsContent = 2;  // Entry flags
constexpr uint32_t kNanoseconds = 1'000'000'000;
constexpr size_t kMaxXattrNameBytes = 255, kMaxXattrValueBytes = 64 << 10;
constexpr size_t kMaxSegments = 1024;
constexpr uint8_t kMaxContentLevel = 15;
constexpr uint64_t kHoleUnit = 4096;
constexpr size_t kSegmentBytes = 8 + ObjectId::kSize;

void PutHead(std::string* out, ObjectKind kind, uint8_t third) {
  out->push_back(static_cast<char>(kind));
  out->push_back(static_cast<char>(kVersion));
  out->push_back(static_cast<char>(third));
  out->push_back('\0');
}

// The four bytes every object of its own begins with. `third` is a level, or null where it must be 0.
Status TakeHead(Decoder* in, ObjectKind kind, const char* what, uint8_t* third) {
  const auto found_kind = in->Take<uint8_t>(), version = in->Take<uint8_t>();
  const auto value = in->Take<uint8_t>(), reserved = in->Take<uint8_t>();
  if (!in->ok()) return Fail(EIO, "{}: shorter than its header", what);
  if (found_kind != static_cast<uint8_t>(kind)) return Fail(EIO, "{}: begins with byte {:#x}", what, found_kind);
  if (version != kVersion) return Fail(EIO, "{}: unknown version {}", what, version);
  if (reserved != 0 || (third == nullptr && value != 0)) return Fail(EIO, "{}: reserved bytes are not zero", what);
  if (third != nullptr) *third = value;
  return {};
}

}  // namespace

FileType FileTypeFromMode(uint32_t st_mode) {
  switch (st_mode & S_IFMT) {
    case S_IFDIR: return FileType::kDirectory;
    case S_IFLNK: return FileType::kSymlink;
    case S_IFCHR: return FileType::kCharDevice;
    case S_IFBLK: return FileType::kBlockDevice;
    case S_IFIFO: return FileType::kFifo;
    case S_IFSOCK: return FileType::kSocket;
    default: return FileType::kRegular;
  }
}

uint32_t ModeBits(FileType type) {
  switch (type) {
    case FileType::kRegular: return S_IFREG;
    case FileType::kDirectory: return S_IFDIR;
    case FileType::kSymlink: return S_IFLNK;
    case FileType::kCharDevice: return S_IFCHR;
    case FileType::kBlockDevice: return S_IFBLK;
    case FileType::kFifo: return S_IFIFO;
    case FileType::kSocket: return S_IFSOCK;
  }
  return 0;
}

std::string EncodeEntry(const Entry& entry) {
  const bool long_target = entry.type == FileType::kSymlink && entry.size > kInlineSymlinkBytes;
  std::string out;
  out.reserve(36 + 2 * ObjectId::kSize + entry.target.size());
  Put<uint8_t>(&out, static_cast<uint8_t>(entry.type));
  const int flags = (entry.xattrs.IsZero() ? 0 : kHasXattrs) | (long_target ? kTargetIsContent : 0);
  Put<uint8_t>(&out, static_cast<uint8_t>(flags));
  Put<uint16_t>(&out, entry.mode);
  Put<uint32_t>(&out, entry.uid);
  Put<uint32_t>(&out, entry.gid);
  Put<uint32_t>(&out, entry.mtime_nsec);
  Put<int64_t>(&out, entry.mtime_sec);
  if (entry.type == FileType::kCharDevice || entry.type == FileType::kBlockDevice) {
    Put<uint32_t>(&out, entry.rdev_major);
    Put<uint32_t>(&out, entry.rdev_minor);
  } else {
    Put<uint64_t>(&out, entry.size);
  }
  if (entry.type == FileType::kRegular || entry.type == FileType::kDirectory || long_target) PutId(&out, entry.id);
  if (!entry.xattrs.IsZero()) PutId(&out, entry.xattrs);
  if (entry.type == FileType::kSymlink && !long_target) out += entry.target;
  return out;
}

Result<Entry> DecodeEntry(std::string_view bytes) {
  Decoder in(bytes);
  Entry entry;
  const auto type = in.Take<uint8_t>(), flags = in.Take<uint8_t>();
  entry.mode = in.Take<uint16_t>();
  entry.uid = in.Take<uint32_t>();
  entry.gid = in.Take<uint32_t>();
  entry.mtime_nsec = in.Take<uint32_t>();
  entry.mtime_sec = in.Take<int64_t>();
  const auto size = in.Take<uint64_t>();
  if (!in.ok()) return Fail(EIO, "entry: {} bytes are too few", bytes.size());
  if (type < static_cast<uint8_t>(FileType::kRegular) || type > static_cast<uint8_t>(FileType::kSocket)) {
    return Fail(EIO, "entry: unknown file type {}", type);
  }
  entry.type = static_cast<FileType>(type);
  if (entry.mode > 07777) return Fail(EIO, "entry: mode {:o} has more than permission bits", entry.mode);
  if (entry.mtime_nsec >= kNanoseconds) return Fail(EIO, "entry: {} nanoseconds", entry.mtime_nsec);
  if ((flags & ~(kHasXattrs | kTargetIsContent)) != 0) return Fail(EIO, "entry: unknown flags {:#x}", flags);

  bool has_id = false;
  size_t inline_bytes = 0;
  bool content_target = false;
  switch (entry.type) {
    case FileType::kRegular:
    case FileType::kDirectory:
      if (size > kMaxFileSize) return Fail(EIO, "entry: size {} is over the limit", size);
      entry.size = size;
      has_id = true;
      break;
    case FileType::kSymlink:
      if (size > kMaxSymlinkBytes) return Fail(EIO, "entry: a symlink target of {} bytes is over the limit", size);
      entry.size = size;
      content_target = has_id = size > kInlineSymlinkBytes;
      if (!has_id) inline_bytes = static_cast<size_t>(size);
      break;
    case FileType::kCharDevice:
    case FileType::kBlockDevice:
      entry.rdev_major = static_cast<uint32_t>(size);
      entry.rdev_minor = static_cast<uint32_t>(size >> 32);
      break;
    case FileType::kFifo:
    case FileType::kSocket:
      if (size != 0) return Fail(EIO, "entry: a fifo or socket with a size");
      break;
  }
  if (content_target != ((flags & kTargetIsContent) != 0)) return Fail(EIO, "entry: target flag does not fit");
  if (has_id) entry.id = in.Id();
  if (flags & kHasXattrs) entry.xattrs = in.Id();
  entry.target = in.Bytes(inline_bytes);
  if (!in.AtEnd()) return Fail(EIO, "entry: {} bytes do not fit its type", bytes.size());
  if (has_id && entry.id.IsZero()) return Fail(EIO, "entry: its id is zero");
  if ((flags & kHasXattrs) && entry.xattrs.IsZero()) return Fail(EIO, "entry: its xattr set's id is zero");
  if (entry.type == FileType::kRegular && (entry.size == 0) != (entry.id == kEmptyContentId)) {
    return Fail(EIO, "entry: size {} does not fit its content's id", entry.size);
  }
  if (entry.target.find('\0') != std::string::npos) return Fail(EIO, "entry: a symlink target with a zero byte");
  return entry;
}

Result<std::string> EncodeXattrs(const XattrSet& xattrs) {
  if (xattrs.empty()) return Fail(EINVAL, "xattr set: an empty set has no encoding");
  std::string out;
  PutHead(&out, ObjectKind::kXattrs, 0);
  Put<uint32_t>(&out, static_cast<uint32_t>(xattrs.size()));
  for (const auto& [name, value] : xattrs) {
    if (name.empty() || name.find('\0') != std::string::npos) return Fail(EINVAL, "xattr set: a bad name");
    if (name.size() > kMaxXattrNameBytes) return Fail(E2BIG, "xattr set: a name of {} bytes", name.size());
    if (value.size() > kMaxXattrValueBytes) return Fail(E2BIG, "xattr {}: a value of {} bytes", name, value.size());
    Put<uint16_t>(&out, static_cast<uint16_t>(name.size()));
    Put<uint32_t>(&out, static_cast<uint32_t>(value.size()));
    out += name;
    out += value;
    if (out.size() > kMaxXattrSetBytes) return Fail(E2BIG, "xattr set: more than {} bytes", kMaxXattrSetBytes);
  }
  return out;
}

Result<XattrSet> DecodeXattrs(std::string_view bytes) {
  if (bytes.size() > kMaxXattrSetBytes) return Fail(EIO, "xattr set: {} bytes are over the limit", bytes.size());
  Decoder in(bytes);
  TRY(TakeHead(&in, ObjectKind::kXattrs, "xattr set", nullptr));
  const auto count = in.Take<uint32_t>();
  XattrSet xattrs;
  for (uint32_t i = 0; i < count && in.ok(); ++i) {
    const auto name_bytes = in.Take<uint16_t>();
    const auto value_bytes = in.Take<uint32_t>();
    if (name_bytes > kMaxXattrNameBytes || value_bytes > kMaxXattrValueBytes) {
      return Fail(EIO, "xattr set: attribute {} is over the limit", i);
    }
    const std::string_view name = in.Bytes(name_bytes), value = in.Bytes(value_bytes);
    if (!in.ok()) break;
    if (name.empty() || name.find('\0') != std::string_view::npos) return Fail(EIO, "xattr set: name {} is bad", i);
    if (!xattrs.empty() && name <= xattrs.rbegin()->first) return Fail(EIO, "xattr set: names are not ascending");
    xattrs.emplace_hint(xattrs.end(), name, value);
  }
  if (!in.AtEnd() || count == 0) return Fail(EIO, "xattr set: {} bytes do not hold {} attributes", bytes.size(), count);
  return xattrs;
}

uint64_t ContentNode::TotalBytes() const {
  uint64_t total = 0;
  for (const Segment& segment : segments) total += segment.length;
  return total;
}

std::string EncodeContentNode(const ContentNode& node) {
  std::string out;
  out.reserve(8 + node.segments.size() * kSegmentBytes);
  PutHead(&out, ObjectKind::kContent, node.level);
  Put<uint32_t>(&out, static_cast<uint32_t>(node.segments.size()));
  for (const Segment& segment : node.segments) {
    Put<uint64_t>(&out, segment.length);
    PutId(&out, segment.id);
  }
  return out;
}

Result<ContentNode> DecodeContentNode(std::string_view bytes) {
  Decoder in(bytes);
  ContentNode node;
  TRY(TakeHead(&in, ObjectKind::kContent, "content node", &node.level));
  const auto count = in.Take<uint32_t>();
  if (node.level > kMaxContentLevel) return Fail(EIO, "content node: level {} is over the limit", node.level);
  if (!in.ok() || count == 0 || count > kMaxSegments || in.left() != count * kSegmentBytes) {
    return Fail(EIO, "content node: {} bytes do not hold {} segments", bytes.size(), count);
  }
  node.segments.reserve(count);
  uint64_t total = 0;
  for (uint32_t i = 0; i < count; ++i) {
    Segment segment;
    segment.length = in.Take<uint64_t>();
    segment.id = in.Id();
    if (segment.length == 0 || segment.length > kMaxFileSize - total) {
      return Fail(EIO, "content node: segment {} has {} bytes", i, segment.length);
    }
    total += segment.length;
    if (segment.id.IsZero()) {
      if (node.level > 0) return Fail(EIO, "content node: child {} has a zero id", i);
      if (segment.length % kHoleUnit != 0) return Fail(EIO, "content node: a hole of {} bytes", segment.length);
      if (i > 0 && node.segments.back().id.IsZero()) return Fail(EIO, "content node: two holes side by side");
    }
    node.segments.push_back(segment);
  }
  return node;
}

Result<Manifest> ReadManifest(const ObjectReader& reader, const ObjectId& id) {
  auto bytes = reader.ReadObject(ObjectKind::kManifest, id);
  if (!bytes) {
    if (bytes.error().code == ENOENT) bytes.error().code = EIO;  // a ref or a version names it: it must be there
    return tl::make_unexpected(std::move(bytes).error());
  }
  auto manifest = DecodeManifest(*bytes);
  if (!manifest) return Annotate(std::move(manifest).error(), "manifest " + id.Hex());
  return manifest;
}

Result<XattrSet> ReadXattrs(const ObjectReader& reader, const ObjectId& id) {
  if (id.IsZero()) return XattrSet{};
  auto bytes = reader.ReadObject(ObjectKind::kXattrs, id);
  if (!bytes) {
    if (bytes.error().code == ENOENT) bytes.error().code = EIO;  // an entry names it: it must be there
    return tl::make_unexpected(std::move(bytes).error());
  }
  auto xattrs = DecodeXattrs(*bytes);
  if (!xattrs) return Annotate(std::move(xattrs).error(), "xattr set " + id.Hex());
  return xattrs;
}

}  // namespace mirage
