// What the disk reader (disk_reader_main.cc), a sandboxed child process that parses filesystems, tells its parent over
// a pipe. The image may be hostile and may have taken the child over: the parent decodes every record as hostile
// bytes, and what it makes of them is no worse than a strange tree. Of file bytes the child names only where they lie
// in its filesystem; the parent reads them there itself, so that they cross no pipe and no lie leads out of the image.
//
// A record is u32 length of the payload, u8 kind, the payload; all little-endian. A text is u32 length and its bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "store/object.h"
#include "store/result.h"

namespace mirage {

enum class RecordKind : uint8_t {
  kPartition = 1,  // survey: a filesystem, or a place for one
  kObstacle,       // survey: a text, why this disk's layout is not for this reader
  kEntry,          // anything but a regular file
  kFile,           // a regular file, followed by kExtents and kBytes in the file's order, and kEndFile
  kExtents,
  kBytes,  // bytes that do not lie in blocks of their own, or those of a file that was asked for by name
  kEndFile,
  kLink,
  kLookup,   // what a path is; a regular file's kBytes and kEndFile follow
  kProblem,  // u32 errno value and a text; the last record
  kDone,     // the last record of a job that went well
};
constexpr size_t kMaxRecordBytes = 4 << 20;
constexpr size_t kMaxExtentsInRecord = 4096;

// What this reader makes of libblkid's types: ext2, ext3 and ext4; FAT12, FAT16 and FAT32 (vfat); all others.
enum class FilesystemKind : uint8_t { kOther, kExt, kFat };
FilesystemKind KindOf(std::string_view type);

// The disk itself (number 0) or a partition, as libblkid sees it.
struct PartitionRecord {
  uint32_t number = 0;
  uint64_t offset = 0, size = 0;             // bytes
  std::string type, uuid, label, part_uuid;  // "ext4", "swap", ...; empty: nothing that is known
  std::string obstacle;                      // of a kind that is read: why this one is not; empty: it is
  uint64_t used_bytes = 0;
  int64_t made_sec = INT64_MIN;  // when the filesystem was made, by its own word
};
struct EntryRecord {
  std::string path, target;
  Entry entry;  // type, mode, owner, mtime, rdev; of a file also size
  uint64_t inode = 0;  // and ctime; 0: the filesystem has none that would tell a change
  int64_t ctime_sec = 0;
  uint32_t ctime_nsec = 0;
  XattrSet xattrs;
};
// Bytes of a file that lie in one piece in the filesystem. What no extent covers is zeros.
struct Extent {
  uint64_t logical = 0, physical = 0, length = 0;  // bytes; physical from the filesystem's start
};
struct LinkRecord {
  std::string path, first;
};
struct LookupRecord {
  std::string path;
  uint8_t type = 0;  // a FileType; 0: there is nothing
};
struct ProblemRecord {
  int code = EIO;
  std::string text;
};

std::string Encode(const PartitionRecord& record);
std::string Encode(const EntryRecord& record);
std::string Encode(const std::vector<Extent>& extents);
std::string Encode(const LinkRecord& record);
std::string Encode(const LookupRecord& record);
std::string Encode(const ProblemRecord& record);

// EIO: not what an honest reader sends: lengths that do not add up, unknown types, an mtime with too many nanoseconds,
// paths that are absolute, too long or have impossible names.
Result<PartitionRecord> DecodePartition(std::string_view payload);
Result<EntryRecord> DecodeEntryRecord(std::string_view payload);
Result<std::vector<Extent>> DecodeExtents(std::string_view payload);
Result<LinkRecord> DecodeLink(std::string_view payload);
Result<LookupRecord> DecodeLookup(std::string_view payload);
Result<ProblemRecord> DecodeProblem(std::string_view payload);

// Non-empty names without NUL, "." and "..", parted by single slashes; at most kMaxPathBytes. "" is the top.
bool IsCleanPath(std::string_view path);

}  // namespace mirage
