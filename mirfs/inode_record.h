// What an overlay keeps of one inode that differs from the version below, or that is new. The encoding is private to an
// overlay's database (little-endian, a version byte first).
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "store/object.h"

namespace mirage {

struct InodeRecord {
  FileType type = FileType::kRegular;
  uint16_t mode = 0;  // 07777
  uint32_t uid = 0, gid = 0;
  uint32_t nlink = 0;
  uint32_t rdev_major = 0, rdev_minor = 0;
  // A regular file with a data file takes mtime and atime from there, and the later of both ctimes.
  struct timespec mtime {}, ctime {}, atime {};
  // The inode it was in the base version: its path there (of a hard-link group: the first) and its entry. Never changes.
  std::optional<Entry> lower;
  std::string origin;
  // Regular: there may be a data file. Without one the file is the first `lower_valid` bytes of the lower content.
  bool may_have_data = false;
  uint64_t lower_valid = 0;  // bytes from here on never come from the lower content; only ever falls
  bool own_xattrs = false;   // else the lower's
  XattrSet xattrs;
  std::string target;        // symlink made here

  uint32_t StMode() const { return ModeBits(type) | mode; }
  bool is_directory() const { return type == FileType::kDirectory; }
};

InodeRecord RecordOfLower(const Entry& entry, std::string origin, uint32_t nlink);
std::string EncodeInodeRecord(const InodeRecord& record);
Result<InodeRecord> DecodeInodeRecord(std::string_view bytes);

}  // namespace mirage
