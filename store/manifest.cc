// The manifest's encoding: tagged fields (FORMAT.md, "Manifest"). Declared in store/object.h.
#include <algorithm>
#include <optional>
#include <tuple>

#include "store/encoding.h"
#include "store/object.h"

namespace mirage {
namespace {

// Tags are never reused. From kOptionalTags on, a reader that does not know a tag passes over it.
constexpr uint16_t kOptionalTags = 0x8000;
enum ManifestTag : uint16_t {
  kRoot = 1, kLinksRoot, kInspectionId, kParent, kBranch, kAuthor, kTime, kMessage, kSource,
  kTotals, kDisk, kMount, kOmission
};
enum DiskTag : uint16_t { kDiskName = 1, kDiskRole, kDiskSize, kDiskSha256, kDiskSkeleton };
enum MountTag : uint16_t { kMountPath = 1, kMountFilesystem, kMountDevice };
constexpr uint32_t kNanoseconds = 1'000'000'000;

void PutField(std::string* out, uint16_t tag, std::string_view bytes) {
  Put<uint16_t>(out, tag);
  Put<uint32_t>(out, static_cast<uint32_t>(bytes.size()));
  out->append(bytes);
}
// What is empty or zero has no field, so that one value has one encoding.
void PutText(std::string* out, uint16_t tag, std::string_view text) {
  if (!text.empty()) PutField(out, tag, text);
}
void PutIdField(std::string* out, uint16_t tag, const ObjectId& id) {
  if (!id.IsZero()) PutField(out, tag, id.view());
}

Status TakeText(std::string_view bytes, std::string* text) {
  if (bytes.empty()) return Fail(EIO, "manifest: an empty field");
  *text = bytes;
  return {};
}
Status TakeId(std::string_view bytes, ObjectId* id) {
  const auto taken = ObjectId::FromBytes(bytes);
  if (!taken || taken->IsZero()) return Fail(EIO, "manifest: a field is not an id");
  *id = *taken;
  return {};
}

// Calls take(tag, bytes) -> Result<bool> for each field; false: a tag it does not know.
template <typename TakeField>
Status TakeFields(Decoder in, bool (*repeats)(uint16_t), const TakeField& take) {
  uint32_t last = 0;
  while (in.left() > 0) {
    const auto tag = in.Take<uint16_t>();
    const auto length = in.Take<uint32_t>();
    const std::string_view bytes = in.Bytes(length);
    if (!in.ok()) return Fail(EIO, "manifest: cut short");
    if (tag < last || tag == 0 || (tag == last && tag < kOptionalTags && !repeats(tag))) {
      return Fail(EIO, "manifest: field {} is out of order", tag);
    }
    last = tag;
    if (tag >= kOptionalTags) continue;
    ASSIGN_OR_RETURN(const bool known, take(tag, bytes));
    if (!known) {
      return Fail(EPROTONOSUPPORT, "manifest: field {} is unknown; it was written by a newer program", tag);
    }
  }
  return {};
}

bool NeverRepeats(uint16_t) { return false; }

std::string EncodeDisk(const Disk& disk) {
  std::string out;
  PutText(&out, kDiskName, disk.name);
  PutText(&out, kDiskRole, disk.role);
  std::string size;
  Put<uint64_t>(&size, disk.size_bytes);
  PutField(&out, kDiskSize, size);
  PutIdField(&out, kDiskSha256, disk.sha256);
  PutIdField(&out, kDiskSkeleton, disk.skeleton);
  return out;
}

Result<Disk> DecodeDisk(std::string_view bytes) {
  Disk disk;
  bool has_size = false;
  const auto take = [&](uint16_t tag, std::string_view field) -> Result<bool> {
    switch (tag) {
      case kDiskName: TRY(TakeText(field, &disk.name)); return true;
      case kDiskRole: TRY(TakeText(field, &disk.role)); return true;
      case kDiskSize:
        if (field.size() != sizeof disk.size_bytes) return Fail(EIO, "manifest: a disk's size is not a number");
        disk.size_bytes = LoadAt<uint64_t>(field, 0);
        has_size = true;
        return true;
      case kDiskSha256: TRY(TakeId(field, &disk.sha256)); return true;
      case kDiskSkeleton: TRY(TakeId(field, &disk.skeleton)); return true;
      default: return false;
    }
  };
  TRY(TakeFields(Decoder(bytes), NeverRepeats, take));
  if (!has_size) return Fail(EIO, "manifest: a disk without a size");
  return disk;
}

std::string EncodeMount(const Mount& mount) {
  std::string out;
  PutText(&out, kMountPath, mount.path);
  PutText(&out, kMountFilesystem, mount.filesystem);
  PutText(&out, kMountDevice, mount.device);
  return out;
}

Result<Mount> DecodeMount(std::string_view bytes) {
  Mount mount;
  const auto take = [&](uint16_t tag, std::string_view field) -> Result<bool> {
    switch (tag) {
      case kMountPath: TRY(TakeText(field, &mount.path)); return true;
      case kMountFilesystem: TRY(TakeText(field, &mount.filesystem)); return true;
      case kMountDevice: TRY(TakeText(field, &mount.device)); return true;
      default: return false;
    }
  };
  TRY(TakeFields(Decoder(bytes), NeverRepeats, take));
  return mount;
}

bool MountLess(const Mount& a, const Mount& b) {
  return std::tie(a.path, a.filesystem, a.device) < std::tie(b.path, b.filesystem, b.device);
}

Result<bool> TakeManifestField(Manifest* manifest, uint16_t tag, std::string_view bytes) {
  switch (tag) {
    case kRoot: {
      ASSIGN_OR_RETURN(manifest->root, DecodeEntry(bytes));
      if (!manifest->root.is_directory()) return Fail(EIO, "manifest: the root is not a directory");
      return true;
    }
    case kLinksRoot: TRY(TakeId(bytes, &manifest->links)); return true;
    case kInspectionId: TRY(TakeId(bytes, &manifest->inspection)); return true;
    case kParent: TRY(TakeId(bytes, &manifest->parents.emplace_back())); return true;
    case kBranch: TRY(TakeText(bytes, &manifest->branch)); return true;
    case kAuthor: TRY(TakeText(bytes, &manifest->author)); return true;
    case kTime: {
      Decoder in(bytes);
      manifest->time_sec = in.Take<int64_t>();
      manifest->time_nsec = in.Take<uint32_t>();
      if (!in.AtEnd() || manifest->time_nsec >= kNanoseconds) return Fail(EIO, "manifest: a bad time");
      return true;
    }
    case kMessage:
      if (bytes.size() > kMaxMessageBytes) return Fail(EIO, "manifest: a message of {} bytes", bytes.size());
      TRY(TakeText(bytes, &manifest->message));
      return true;
    case kSource: TRY(TakeText(bytes, &manifest->source)); return true;
    case kTotals: {
      Decoder in(bytes);
      manifest->file_count = in.Take<uint64_t>();
      manifest->total_bytes = in.Take<uint64_t>();
      if (!in.AtEnd()) return Fail(EIO, "manifest: totals of {} bytes", bytes.size());
      return true;
    }
    case kDisk: {
      ASSIGN_OR_RETURN(Disk disk, DecodeDisk(bytes));
      manifest->disks.push_back(std::move(disk));
      return true;
    }
    case kMount: {
      ASSIGN_OR_RETURN(Mount mount, DecodeMount(bytes));
      if (!manifest->mounts.empty() && MountLess(mount, manifest->mounts.back())) {
        return Fail(EIO, "manifest: mounts are not ascending");
      }
      manifest->mounts.push_back(std::move(mount));
      return true;
    }
    case kOmission: TRY(TakeText(bytes, &manifest->omissions.emplace_back())); return true;
    default: return false;
  }
}

}  // namespace

Result<std::string> EncodeManifest(const Manifest& manifest) {
  if (manifest.message.size() > kMaxMessageBytes) {
    return Fail(E2BIG, "the message has {} bytes; {} are allowed", manifest.message.size(), kMaxMessageBytes);
  }
  std::string out{static_cast<char>(ObjectKind::kManifest), '\1', '\0', '\0'};
  PutField(&out, kRoot, EncodeEntry(manifest.root));
  PutIdField(&out, kLinksRoot, manifest.links);
  PutIdField(&out, kInspectionId, manifest.inspection);
  for (const ObjectId& parent : manifest.parents) PutField(&out, kParent, parent.view());
  PutText(&out, kBranch, manifest.branch);
  PutText(&out, kAuthor, manifest.author);
  std::string time;
  Put<int64_t>(&time, manifest.time_sec);
  Put<uint32_t>(&time, manifest.time_nsec);
  PutField(&out, kTime, time);
  PutText(&out, kMessage, manifest.message);
  PutText(&out, kSource, manifest.source);
  std::string totals;
  Put<uint64_t>(&totals, manifest.file_count);
  Put<uint64_t>(&totals, manifest.total_bytes);
  PutField(&out, kTotals, totals);
  for (const Disk& disk : manifest.disks) PutField(&out, kDisk, EncodeDisk(disk));
  std::vector<Mount> mounts = manifest.mounts;
  std::stable_sort(mounts.begin(), mounts.end(), MountLess);
  for (const Mount& mount : mounts) PutField(&out, kMount, EncodeMount(mount));
  for (const std::string& omission : manifest.omissions) PutField(&out, kOmission, omission);
  if (out.size() > kMaxManifestBytes) {
    return Fail(E2BIG, "the manifest has {} bytes; {} are allowed", out.size(), kMaxManifestBytes);
  }
  // What could not be read again is not written.
  if (auto decoded = DecodeManifest(out); !decoded) return Fail(EINVAL, "{}", decoded.error().message);
  return out;
}

Result<Manifest> DecodeManifest(std::string_view bytes) {
  if (bytes.size() > kMaxManifestBytes) return Fail(EIO, "manifest: {} bytes are over the limit", bytes.size());
  Decoder in(bytes);
  const auto kind = in.Take<uint8_t>(), version = in.Take<uint8_t>();
  const auto reserved = in.Take<uint16_t>();
  if (!in.ok() || kind != static_cast<uint8_t>(ObjectKind::kManifest) || reserved != 0) {
    return Fail(EIO, "manifest: does not begin as one");
  }
  if (version != 1) return Fail(EPROTONOSUPPORT, "manifest: version {} is unknown", version);
  Manifest manifest;
  bool has_root = false, has_time = false, has_totals = false;
  const auto repeats = [](uint16_t tag) { return tag == kParent || tag == kDisk || tag == kMount || tag == kOmission; };
  TRY(TakeFields(in, repeats, [&](uint16_t tag, std::string_view field) {
    has_root |= tag == kRoot;
    has_time |= tag == kTime;
    has_totals |= tag == kTotals;
    return TakeManifestField(&manifest, tag, field);
  }));
  if (!has_root || !has_time || !has_totals) return Fail(EIO, "manifest: its root, time or totals are missing");
  return manifest;
}

}  // namespace mirage
