#include "indexer/disk_format.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "indexer/image_file.h"
#include "indexer/image_tables.h"

namespace mirage {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kMaxBackingName = 1023;  // QEMU's limit
constexpr int kMaxBackingDepth = 100;

tl::unexpected<Error> Truncated(uint64_t needed, uint64_t size) {
  return Fail(EINVAL, "the image is truncated: it speaks of {} bytes and has {}; copy it again", needed, size);
}
tl::unexpected<Error> Encrypted(std::string_view how) {
  return Fail(EINVAL, "the disk is encrypted ({}); try --key", how);
}

Status CheckLength(const ImageFile& file, const Result<uint64_t>& needed) {
  if (!needed) return tl::make_unexpected(needed.error());
  if (*needed > file.size()) return Truncated(*needed, file.size());
  return {};
}

std::string BackingName(const ImageFile& file) {
  const std::string header = file.Read(0, 20);
  const uint64_t offset = Big64(header, 8), length = Big32(header, 16);
  return offset == 0 || length > kMaxBackingName ? "" : file.Read(offset, static_cast<size_t>(length));
}

// Of an image that the user trusts: the files below it, as far down as they are qcow2 too.
Status CheckBackingFiles(const ImageFile& top, const std::string& top_path) {
  ImageFile file = top;
  std::string path = top_path;
  for (int depth = 0; depth < kMaxBackingDepth; ++depth) {
    const std::string name = file.Read(0, 4) == "QFI\xfb" ? BackingName(file) : "";
    // "json:{...}", "nbd://..." are QEMU's business.
    const size_t colon = name.find(':');
    if (name.empty() || (colon != std::string::npos && colon < name.find('/'))) return {};
    const size_t slash = path.rfind('/');
    path = name.starts_with('/') || slash == std::string::npos ? name : path.substr(0, slash + 1) + name;
    auto below = ImageFile::Open(path);
    if (!below) {
      return Fail(below.error().code, "its backing file {} cannot be opened: {}", path, below.error().message);
    }
    file = std::move(*below);
  }
  return Fail(EINVAL, "a chain of more than {} backing files", kMaxBackingDepth);
}

Status CheckQcow2(const ImageFile& file, bool trusted) {
  const std::string header = file.Read(0, 112);
  if (header.size() < 72) return Truncated(72, file.size());
  const uint32_t version = Big32(header, 4);
  if (version < 2 || version > 3) return Fail(EINVAL, "a qcow2 image of version {}; convert it with qemu-img", version);
  const uint64_t incompatible = version >= 3 ? Big64(header, 72) : 0;
  if (!trusted && Big64(header, 8) != 0) {
    return Fail(EINVAL, "the qcow2 image has a backing file, {}; if you trust it, say --format qcow2",
                BackingName(file).substr(0, 200));
  }
  if (!trusted && (incompatible & 4) != 0) {
    return Fail(EINVAL, "the qcow2 image has an external data file; if you trust it, say --format qcow2");
  }
  if (Big32(header, 32) != 0) {
    return Fail(EINVAL, "the disk is encrypted (qcow2); decrypt it with qemu-img convert");
  }
  return CheckLength(file, Qcow2Length(file));
}

// A sparse vmdk with its description inside; a description alone only names other files. As QEMU reads it: 20 sectors
// whatever the header says, and with a capacity of 0 the description is taken for one that stands alone.
Status CheckVmdk(const ImageFile& file, std::string_view head) {
  constexpr uint64_t kDescriptionBytes = 20 * kSectorBytes;
  const uint64_t capacity = Little64(head, 12);
  const uint64_t sector = Little64(head, 28);
  if (sector == 0 || sector > file.size() / kSectorBytes) return Fail(EINVAL, "the vmdk header is damaged");
  const std::string description = file.Read(sector * kSectorBytes, kDescriptionBytes);
  if (description.find("parentFileNameHint") != std::string::npos) {
    return Fail(EINVAL, "the vmdk image has a parent image; make one of them with qemu-img convert -O qcow2");
  }
  if (capacity == 0 || (description.find("createType=\"monolithicSparse\"") == std::string::npos &&
                        description.find("createType=\"streamOptimized\"") == std::string::npos)) {
    return Fail(EINVAL, "the vmdk image consists of several files; convert it with qemu-img convert -O qcow2");
  }
  return CheckLength(file, VmdkLength(file));
}

// A partition table that reaches behind the end of the file.
Status CheckRaw(const ImageFile& file, std::string_view head, bool keys) {
  if (!keys && head.starts_with(std::string_view("LUKS\xba\xbe", 6))) return Encrypted("LUKS");
  if (!keys && head.substr(0, std::min<size_t>(head.size(), 16)).find("-FVE-FS-") != std::string_view::npos) {
    return Encrypted("BitLocker");
  }
  if (head.size() < kSectorBytes || head.substr(510, 2) != "\x55\xaa") return {};
  // A boot sector of FAT or NTFS has the same signature, and code where the table would be.
  if (head.substr(0x36, 3) == "FAT" || head.substr(0x52, 3) == "FAT" || head.substr(3, 4) == "NTFS") return {};
  uint64_t end = 0;
  bool gpt = false;
  for (size_t i = 0; i < 4; ++i) {
    const std::string_view entry = head.substr(446 + i * 16, 16);
    const auto status = static_cast<uint8_t>(entry[0]), type = static_cast<uint8_t>(entry[4]);
    if ((status & 0x7f) != 0) return {};  // no table after all
    if (type == 0xee) gpt = true;
    if (type != 0 && type != 0xee) {
      end = std::max(end, (uint64_t{Little32(entry, 8)} + Little32(entry, 12)) * kSectorBytes);
    }
  }
  if (gpt && head.size() >= 2 * kSectorBytes && head.substr(kSectorBytes, 8) == "EFI PART") {
    const uint64_t last_usable = Little64(head, kSectorBytes + 48);
    if (last_usable < (uint64_t{1} << 54)) end = (last_usable + 1) * kSectorBytes;
  }
  if (end > file.size()) return Truncated(end, file.size());
  return {};
}

}  // namespace

Result<std::string> DetectDiskFormat(const std::string& path, const std::string& requested, bool keys) {
  if (!requested.empty() && requested != "raw" && requested != "qcow2") {
    return Fail(EINVAL, "format {} is not known; use raw, qcow2, tar, oci, docker or directory", requested);
  }
  ASSIGN_OR_RETURN(const ImageFile file, ImageFile::Open(path));
  if (file.size() == 0) return Fail(EINVAL, "the file is empty; it is no disk image");
  const std::string head = file.Read(0, 4096);
  if (head.empty()) return Fail(EIO, "{}: it cannot be read", path);
  const auto starts = [&](std::string_view magic) { return head.starts_with(magic); };

  if (requested == "raw") {
    TRY(CheckRaw(file, head, keys));
    return "raw";
  }
  if (starts("QFI\xfb")) {
    TRY(CheckQcow2(file, requested == "qcow2"));
    if (requested == "qcow2") TRY(CheckBackingFiles(file, path));
    return "qcow2";
  }
  if (requested == "qcow2") return Fail(EINVAL, "it is no qcow2 image; leave --format away to have the kind detected");
  if (starts("KDMV")) {
    TRY(CheckVmdk(file, head));
    return "vmdk";
  }
  if (starts("COWD") || starts("# Disk DescriptorFile")) {
    return Fail(EINVAL, "a vmdk description names other files; convert it with qemu-img convert -O qcow2");
  }
  if (Little32(head, 0x40) == 0xbeda107f) {
    if (Little32(head, 0x4c) > 2) return Fail(EINVAL, "the vdi image is a difference to another; merge it first");
    TRY(CheckLength(file, VdiLength(file)));
    return "vdi";
  }
  if (starts("vhdxfile")) {
    TRY(CheckLength(file, VhdxLength(file)));
    return "vhdx";
  }
  const std::string tail = file.size() >= kSectorBytes ? file.Read(file.size() - kSectorBytes, kSectorBytes) : "";
  if (starts("conectix") || tail.starts_with("conectix")) {
    if (Big32(starts("conectix") ? head : tail, 60) == 4 || Big32(tail, 60) == 4) {
      return Fail(EINVAL, "the vhd image is a difference to another; merge it first");
    }
    TRY(CheckLength(file, VhdLength(file)));
    return "vpc";
  }
  TRY(CheckRaw(file, head, keys));
  return "raw";
}

}  // namespace mirage
