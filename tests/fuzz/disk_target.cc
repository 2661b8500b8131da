#include "tests/fuzz/disk_target.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "indexer/ext_filesystem.h"
#include "indexer/fat_filesystem.h"
#include "store/encoding.h"
#include "tests/indexer/fat_image.h"
#include "tests/testing/temporary_directory.h"

namespace mirage::testing {
namespace {

constexpr uint64_t kMostWindowBytes = 64 << 20;

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

int Memory(std::string_view bytes, uint64_t size) {
  const int fd = memfd_create("disk", MFD_CLOEXEC);
  Require(fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0 &&
              pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()),
          "memory for an image");
  return fd;
}

// What was said, as the parent would take it.
class Checker {
 public:
  // `whole`: the walk went well. `sparse`: what no extent covers is a hole, and blocks may be shared as long as all that
  // files have is no more than there is.
  Checker(uint64_t window_bytes, bool whole, bool sparse) : window_bytes_(window_bytes), whole_(whole), sparse_(sparse) {}

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
    switch (kind) {
      case RecordKind::kExtents:
        return TakeExtents(payload);
      case RecordKind::kBytes:
        Require(open_ && payload.size() <= size_ - at_, "bytes belong to a file");
        at_ += payload.size();
        return;
      case RecordKind::kEndFile:
        Require(open_ && (sparse_ || at_ >= size_), "a file is whole");
        open_ = false;
        return;
      case RecordKind::kLink: {
        const auto link = DecodeLink(payload);
        Require(link.has_value() && !open_, "a link is one that the parent takes");
        Require(files_.contains(link->first), "a link is to a file that came");
        TakePath(link->path);
        return;
      }
      default:
        return TakeEntry(kind, payload);
    }
  }
  void TakePath(const std::string& path) {
    const size_t slash = path.rfind('/');
    Require(path.empty() || directories_.contains(slash == std::string::npos ? "" : path.substr(0, slash)),
            "a directory comes before what is in it");
    Require(paths_.insert(path).second, "a path comes once");
  }
  void TakeEntry(RecordKind kind, std::string_view payload) {
    const auto record = DecodeEntryRecord(payload);
    Require(record.has_value() && !open_, "an entry is one that the parent takes");
    Require((kind == RecordKind::kFile) == (record->entry.type == FileType::kRegular), "a file has bytes");
    TakePath(record->path);
    (record->entry.type == FileType::kDirectory ? directories_ : files_).insert(record->path);
    open_ = kind == RecordKind::kFile;
    size_ = record->entry.size;
    at_ = 0;
  }
  void TakeExtents(std::string_view payload) {
    const auto extents = DecodeExtents(payload);
    Require(open_ && extents.has_value(), "extents belong to a file");
    for (const Extent& extent : *extents) {
      Require(extent.length > 0 && extent.logical < size_, "an extent is of the file");
      Require(sparse_ ? extent.logical >= at_ : extent.logical == at_, "a file's extents follow each other");
      Require(extent.physical < window_bytes_ && extent.length <= window_bytes_ - extent.physical,
              "extents lie in the filesystem");
      at_ = extent.logical + extent.length;
      total_ += extent.length;
      Require(total_ <= window_bytes_, "no more is told than there is");
      if (sparse_) continue;
      const auto next = taken_.lower_bound(extent.physical);
      Require((next == taken_.end() || next->first >= extent.physical + extent.length) &&
                  (next == taken_.begin() || std::prev(next)->second <= extent.physical),
              "no two files share bytes");
      taken_[extent.physical] = extent.physical + extent.length;
    }
  }

  const uint64_t window_bytes_;
  const bool whole_, sparse_;
  bool open_ = false;
  uint64_t size_ = 0, at_ = 0, total_ = 0;
  std::set<std::string> paths_, directories_, files_;
  std::map<uint64_t, uint64_t> taken_;
};

std::string ReadAll(int fd) {
  std::string bytes(static_cast<size_t>(std::max<off_t>(lseek(fd, 0, SEEK_END), 0)), '\0');
  Require(pread(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()), "what was written");
  return bytes;
}

// `size`: by its superblock.
template <typename Filesystem>
void RunDisk(std::string_view bytes, uint64_t size, bool sparse) {
  size = std::clamp<uint64_t>(size, bytes.size(), std::max<uint64_t>(bytes.size(), kMostWindowBytes));
  const int image = Memory(bytes, size), said = Memory({}, 0);
  const DiskWindow window(image, 0, size);
  const auto summary = Filesystem::Examine(window);
  const auto filesystem = Filesystem::Open(window);
  Require(summary.obstacle.empty() || !filesystem, "what has an obstacle is not opened");
  if (!filesystem) Require(filesystem.error().code == (summary.obstacle.empty() ? EIO : EOPNOTSUPP), "damage is EIO");
  if (filesystem) {
    Require(summary.used_bytes <= size, "no more is used than there is");
    for (const char* path : {"", "a", "sub/deep/file.txt", "sub/link", "SUB/../x"}) {
      ReaderOutput output(said);
      static_cast<void>((*filesystem)->LookUp(path, true, 1000, output));
    }
    Require(ftruncate(said, 0) == 0 && lseek(said, 0, SEEK_SET) == 0, "what was looked up is put away");
    ReaderOutput output(said);
    const Status walked = (*filesystem)->Walk({"hidden"}, output);
    if (!walked) {
      const int code = walked.error().code;
      Require(code == EIO || (sparse && (code == EOPNOTSUPP || code == ENOMEM)), "damage is EIO");
    }
    static_cast<void>(output.Flush());
    Checker(size, walked.has_value(), sparse).Check(ReadAll(said));
  }
  close(image);
  close(said);
}

}  // namespace

void RunFat(std::string_view bytes) {
  uint64_t size = 0;
  if (bytes.size() >= 512) {
    const uint64_t few = LoadAt<uint16_t>(bytes, 19), sectors = few != 0 ? few : LoadAt<uint32_t>(bytes, 32);
    size = sectors * LoadAt<uint16_t>(bytes, 11);
  }
  RunDisk<FatFilesystem>(bytes, size, false);
}

void RunExt(std::string_view bytes) {
  uint64_t size = 0;
  if (bytes.size() >= 2048) size = uint64_t{LoadAt<uint32_t>(bytes, 1028)} << (10 + (LoadAt<uint32_t>(bytes, 1048) & 7));
  RunDisk<ExtFilesystem>(bytes, size, true);
}

std::vector<std::string> ExtSeeds() {
  const TemporaryDirectory temporary;
  const std::string tree = temporary.path() + "/tree", image = temporary.path() + "/image";
  namespace fs = std::filesystem;
  fs::create_directories(tree + "/sub/deep");
  const auto write = [&](const std::string& path, const std::string& bytes) {
    std::ofstream(tree + path, std::ios::binary) << bytes;
  };
  write("/sub/deep/file.txt", std::string(1500, 'f'));
  write("/a", "short");
  write("/empty", "");
  write("/longer", std::string(15'000, 'l'));  // indirect blocks, where there are no extents
  write("/holes", "at the beginning");
  fs::resize_file(tree + "/holes", 9000);
  fs::create_hard_link(tree + "/a", tree + "/sub/also");
  fs::create_symlink("deep/file.txt", tree + "/sub/link");
  fs::create_symlink(std::string(300, 's'), tree + "/slow");
  setxattr((tree + "/a").c_str(), "user.comment", "of some length", 14, 0);  // where the host can; the kept ones have it
  std::vector<std::string> seeds;
  for (const char* kind : {"ext4 -O ^metadata_csum,^64bit,^resize_inode,^has_journal,inline_data -I 256",
                           "ext4 -O ^resize_inode,^has_journal -I 256", "ext2 -O ^resize_inode -I 128"}) {
    const std::string command =
        fmt::format("rm -f {1} && truncate -s 64k {1} && mke2fs -q -F -b 1024 -N 32 -U clear -t {0} -d {2} {1} 2>/dev/null",
                    kind, image, tree);
    Require(std::system(command.c_str()) == 0, "mke2fs makes a filesystem");
    std::ifstream in(image, std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    bytes.resize(bytes.find_last_not_of('\0') + 1);
    seeds.push_back(std::move(bytes));
  }
  return seeds;
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
