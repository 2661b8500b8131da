// The metadata objects and their canonical encodings (FORMAT.md, "Objects"): one value has one encoding, and a
// decoder accepts nothing else. Decoders take hostile bytes: every length is checked, limits are the k... constants.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/object_id.h"
#include "store/result.h"

namespace mirage {

// The byte before an id in RocksDB's keys and in a pack's block tables. Never reused.
enum class ObjectKind : uint8_t {
  kChunk = 'c',        // a run of file bytes; id = SHA-256 of them
  kContent = 'l',      // root of a content's segment list; id = SHA-256 of the content's bytes
  kContentNode = 'n',  // inner part of a long segment list; id = SHA-256 of its encoding (so are all below)
  kTree = 't',         // node of a directory
  kLinks = 'k',        // node of a version's hard-link map
  kXattrs = 'x',
  kInspection = 'i',
  kManifest = 'm',
};
inline constexpr std::array kObjectKinds = {ObjectKind::kChunk,  ObjectKind::kContent, ObjectKind::kContentNode,
                                     ObjectKind::kTree,   ObjectKind::kLinks,   ObjectKind::kXattrs,
                                     ObjectKind::kInspection, ObjectKind::kManifest};

enum class FileType : uint8_t { kRegular = 1, kDirectory, kSymlink, kCharDevice, kBlockDevice, kFifo, kSocket };
FileType FileTypeFromMode(uint32_t st_mode);  // S_IFMT bits -> type; unknown: kRegular
uint32_t ModeBits(FileType type);             // type -> S_IFMT bits

constexpr size_t kMaxNameBytes = 1024;         // a name in a directory (Linux: 255; NTFS in UTF-8: 765)
constexpr size_t kMaxPathBytes = 65535;
constexpr size_t kMaxSymlinkBytes = 65535;
constexpr size_t kInlineSymlinkBytes = 255;    // longer targets are contents of their own
constexpr size_t kMaxXattrSetBytes = 1 << 20;  // encoded
constexpr size_t kMaxManifestBytes = 64 << 10;
constexpr size_t kMaxMessageBytes = 16 << 10;
constexpr uint64_t kMaxFileSize = (uint64_t{1} << 63) - 1;

// Everything of a directory entry but its name: what a tree's identity holds. Members that do not apply to `type`
// are zero; the decoder enforces it.
struct Entry {
  FileType type = FileType::kRegular;
  uint16_t mode = 0;         // permission bits, 07777
  uint32_t uid = 0, gid = 0;
  int64_t mtime_sec = 0;
  uint32_t mtime_nsec = 0;   // < 1e9
  uint64_t size = 0;         // regular: bytes. symlink: bytes of the target. directory: number of its subdirectories.
  uint32_t rdev_major = 0, rdev_minor = 0;  // devices
  ObjectId id;               // regular: content (kEmptyContentId when size is 0). directory: tree. symlink with a long target: content.
  ObjectId xattrs;           // zero: none
  std::string target;        // symlink of at most kInlineSymlinkBytes

  bool operator==(const Entry&) const = default;
  bool is_directory() const { return type == FileType::kDirectory; }
};
std::string EncodeEntry(const Entry& entry);
Result<Entry> DecodeEntry(std::string_view bytes);

// Extended attributes, sorted by name. Importers drop `user.mirage.*`.
using XattrSet = std::map<std::string, std::string>;
Result<std::string> EncodeXattrs(const XattrSet& xattrs);  // E2BIG over the limit; an empty set has no object
Result<XattrSet> DecodeXattrs(std::string_view bytes);

// One node of a content's segment list. Level 0: runs of chunk bytes or holes (zero id). Above: child nodes.
struct Segment {
  uint64_t length = 0;  // bytes; > 0
  ObjectId id;          // level 0: chunk, zero for a hole; above: kContentNode
  bool operator==(const Segment&) const = default;
};
struct ContentNode {
  uint8_t level = 0;
  std::vector<Segment> segments;
  uint64_t TotalBytes() const;
};
std::string EncodeContentNode(const ContentNode& node);
Result<ContentNode> DecodeContentNode(std::string_view bytes);

// A disk of the machine. `kept` is false until its skeleton is stored; then `skeleton` names it.
struct Disk {
  std::string name, role;  // "sda", "system"
  uint64_t size_bytes = 0;
  ObjectId sha256;         // of the raw disk; zero: not computed
  ObjectId skeleton;       // zero: not kept
  bool operator==(const Disk&) const = default;
};
struct Mount {
  std::string path, filesystem, device;  // "/boot", "ext4", "/dev/sda1"
  bool operator==(const Mount&) const = default;
};

// How an omission begins that says that a filesystem could not be read and was left out on request: the version is not
// the whole of its source.
inline constexpr std::string_view kUnreadable = "unreadable: ";

// One version of an image.
struct Manifest {
  Entry root;                     // the root directory's own entry
  ObjectId links;                 // root node of the links map; zero: no hard links
  ObjectId inspection;            // zero: none
  std::vector<ObjectId> parents;
  std::string branch, author, message, source;  // UTF-8 not guaranteed
  int64_t time_sec = 0;
  uint32_t time_nsec = 0;
  std::vector<Disk> disks;
  std::vector<Mount> mounts;      // sorted by path
  std::vector<std::string> omissions;  // what the source had and the version has not, one sentence each
  uint64_t file_count = 0, total_bytes = 0;  // entries below the root; sum of regular sizes (a hard link once a name)
  bool operator==(const Manifest&) const = default;
};
Result<std::string> EncodeManifest(const Manifest& manifest);  // E2BIG over kMaxManifestBytes
Result<Manifest> DecodeManifest(std::string_view bytes);

// Where metadata objects are read from: a snapshot, or a transaction on top of one. Thread-safe.
class ObjectReader {
 public:
  virtual ~ObjectReader() = default;
  // The encoding; ENOENT: the library has no such object; EIO: it is damaged.
  virtual Result<std::string> ReadObject(ObjectKind kind, const ObjectId& id) const = 0;
};
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;
  // Stages an encoding; its id is its SHA-256, but for kContent, whose id is given. Idempotent. Thread-safe.
  virtual Result<ObjectId> WriteObject(ObjectKind kind, std::string_view encoding) = 0;
  virtual Status WriteContentList(const ObjectId& content, std::string_view encoding) = 0;
};

Result<Manifest> ReadManifest(const ObjectReader& reader, const ObjectId& id);
Result<XattrSet> ReadXattrs(const ObjectReader& reader, const ObjectId& id);  // zero id: empty set

}  // namespace mirage
