// The files that a container image consists of, by name: those of a directory, or the members of a tar archive. An
// uncompressed archive is read in place; a compressed one, or standard input, is first written, uncompressed, to a
// nameless file of a scratch directory. Names are a stranger's: no symbolic link is followed out of the image.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "indexer/name_memory.h"
#include "store/result.h"

namespace mirage {

// A run of bytes in an open file, which it keeps open.
class FilePart {
 public:
  FilePart() = default;
  FilePart(std::shared_ptr<const int> fd, uint64_t offset, uint64_t size)
      : fd_(std::move(fd)), offset_(offset), size_(size) {}
  uint64_t size() const { return size_; }
  uint64_t offset() const { return offset_; }
  // Short at the part's end. EIO: the file ends before it.
  Result<size_t> ReadAt(uint64_t at, char* out, size_t length) const;

 private:
  std::shared_ptr<const int> fd_;
  uint64_t offset_ = 0, size_ = 0;
};

class ContainerFiles {
 public:
  // ENOENT: the directory has no file `oci-layout`.
  static Result<std::unique_ptr<ContainerFiles>> OpenDirectory(const std::string& path);

  struct ArchiveOptions {
    std::string path;     // "-": standard input
    std::string scratch;  // a directory
    bool asked = false;   // the user says that it is a container image
    bool any = false;     // any archive will do
    uint64_t name_bytes = kNameMemoryBytes;
    const std::atomic<bool>* interrupted = nullptr;
  };
  // Null: a tar archive of something else, which its first member tells, most often. EIO: damaged. E2BIG: it grows too
  // much (byte_stream.h, scratch_file.h), or has more than 2^20 members. EINVAL: `asked`, and it is none.
  static Result<std::unique_ptr<ContainerFiles>> OpenArchive(const ArchiveOptions& options);

  // ENOENT; EINVAL: a name that leads out of the image, or is no regular file.
  Result<FilePart> Find(std::string_view name) const;
  std::vector<std::string> Names() const;  // of an archive's members
  bool Has(std::string_view name) const { return Find(name).has_value(); }
  // E2BIG: longer than `limit`.
  Result<std::string> ReadWhole(std::string_view name, size_t limit) const;

 private:
  struct Member {
    uint64_t offset = 0, size = 0;
    std::string link;  // of a symbolic or hard link: what it means
  };
  ContainerFiles() = default;

  std::shared_ptr<const int> fd_;  // of the directory or the archive
  bool directory_ = false;
  std::map<std::string, Member, std::less<>> members_;  // of an archive
};

}  // namespace mirage
