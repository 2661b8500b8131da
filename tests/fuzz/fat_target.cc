#include "tests/fuzz/fat_target.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>

#include "indexer/fat_filesystem.h"
#include "store/encoding.h"
#include "tests/indexer/fat_image.h"

namespace mirage::testing {
namespace {

constexpr uint64_t kMostWindowBytes = 64 << 20;

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

int Memory(std::string_view bytes, uint64_t size) {
  const int fd = memfd_create("fat", MFD_CLOEXEC);
  Require(fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0 &&
              pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()),
          "memory for an image");
  return fd;
}

// What was said, as the parent would take it. `whole`: the walk went well.
class Checker {
 public:
  Checker(uint64_t window_bytes, bool whole) : window_bytes_(window_bytes), whole_(whole) {}

  void Check(std::string_view said) {
    while (!said.empty()) {
      Require(said.size() >= 5, "a record has a head");
      const auto length = LoadAt<uint32_t>(said, 0);
      const auto kind = static_cast<RecordKind>(said[4]);
      said.remove_prefix(5);
      Require(length <= said.size() && length <= kMaxRecordBytes, "a record is whole");
      Take(kind, said.substr(0, length));
      said.remove_prefix(length);
    }
    Require(!whole_ || (!paths_.empty() && !open_), "a walk ends with whole files");
  }

 private:
  void Take(RecordKind kind, std::string_view payload) {
    if (kind == RecordKind::kExtents) {
      const auto extents = DecodeExtents(payload);
      Require(open_ && extents.has_value(), "extents belong to a file");
      for (const Extent& extent : *extents) {
        Require(extent.length > 0 && extent.logical == at_ && extent.logical < size_, "a file's extents have no gaps");
        Require(extent.physical < window_bytes_ && extent.length <= window_bytes_ - extent.physical,
                "extents lie in the filesystem");
        at_ += extent.length;
        const auto next = taken_.lower_bound(extent.physical);
        Require((next == taken_.end() || next->first >= extent.physical + extent.length) &&
                    (next == taken_.begin() || std::prev(next)->second <= extent.physical),
                "no two files share bytes");
        taken_[extent.physical] = extent.physical + extent.length;
      }
      return;
    }
    if (kind == RecordKind::kEndFile) {
      Require(open_ && at_ >= size_, "a file is whole");
      open_ = false;
      return;
    }
    const auto record = DecodeEntryRecord(payload);
    Require(record.has_value() && !open_, "an entry is one that the parent takes");
    Require((kind == RecordKind::kFile) == (record->entry.type == FileType::kRegular), "a file has bytes");
    const size_t slash = record->path.rfind('/');
    Require(record->path.empty() || paths_.contains(slash == std::string::npos ? "" : record->path.substr(0, slash)),
            "a directory comes before what is in it");
    Require(paths_.insert(record->path).second, "a path comes once");
    open_ = kind == RecordKind::kFile;
    size_ = record->entry.size;
    at_ = 0;
  }

  const uint64_t window_bytes_;
  const bool whole_;
  bool open_ = false;
  uint64_t size_ = 0, at_ = 0;
  std::set<std::string> paths_;
  std::map<uint64_t, uint64_t> taken_;
};

std::string ReadAll(int fd) {
  std::string bytes(static_cast<size_t>(std::max<off_t>(lseek(fd, 0, SEEK_END), 0)), '\0');
  Require(pread(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()), "what was written");
  return bytes;
}

}  // namespace

void RunFat(std::string_view bytes) {
  uint64_t size = bytes.size();
  if (bytes.size() >= 512) {
    const uint64_t few = LoadAt<uint16_t>(bytes, 19), sectors = few != 0 ? few : LoadAt<uint32_t>(bytes, 32);
    size = std::clamp<uint64_t>(sectors * LoadAt<uint16_t>(bytes, 11), size, std::max(size, kMostWindowBytes));
  }
  const int image = Memory(bytes, size), said = Memory({}, 0);
  const DiskWindow window(image, 0, size);
  const auto summary = FatFilesystem::Examine(window);
  const auto filesystem = FatFilesystem::Open(window);
  Require(summary.obstacle.empty() == filesystem.has_value(), "an obstacle is one for both");
  if (filesystem) {
    Require(summary.used_bytes <= size, "no more is used than there is");
    for (const char* path : {"", "a", "sub/deep/file.txt", "SUB/../x"}) {
      ReaderOutput output(said);
      static_cast<void>((*filesystem)->LookUp(path, true, 1000, output));
    }
    ReaderOutput output(said);
    const Status walked = (*filesystem)->Walk({"hidden"}, output);
    if (!walked) Require(walked.error().code == EIO, "damage is EIO");
    static_cast<void>(output.Flush());
    Checker(size, walked.has_value()).Check(ReadAll(said));
  }
  close(image);
  close(said);
}

std::vector<std::string> FatSeeds() {
  std::vector<std::string> seeds;
  for (const int bits : {12, 16, 32}) {
    FatImage image(bits, 60);
    const uint32_t sub =
        image.AddDirectory(FatImage::kRoot, {.short_name = "SUB        ", .long_name = {}, .lower = 8});
    const uint32_t deep = image.AddDirectory(sub, {.short_name = "DEEP       ", .long_name = {}});
    image.AddFile(deep, {.short_name = "FILE    TXT", .long_name = {}, .lower = 24}, std::string(1500, 'f'));
    image.AddFile(FatImage::kRoot, {.short_name = "ALONG~1 TXT", .long_name = u"a long name \U0001f600.txt"}, "long",
                  true);
    image.AddFile(sub, {.short_name = "BACK       ", .long_name = {}}, std::string(2000, 'b'), true);
    image.AddFile(sub, {.short_name = "\x05MPTY      ", .long_name = {}}, "");
    image.bytes.resize(image.bytes.find_last_not_of('\0') + 1);
    seeds.push_back(std::move(image.bytes));
  }
  return seeds;
}

}  // namespace mirage::testing
