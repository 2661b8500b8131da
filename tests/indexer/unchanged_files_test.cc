// What has not changed since the last import is not read again, and what has is: by the direct reader and from a
// directory. guestfs_test.cc shows the same of the appliance.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "indexer/importer.h"
#include "indexer/sparse_file.h"
#include "store/source_facts.h"
#include "tests/testing/memory_store.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

bool Shell(const std::string& command) { return std::system(("{ " + command + "; } >&2").c_str()) == 0; }

class UnchangedFilesTest : public LibraryTest {
 protected:
  ImportReport Run(const std::string& source, bool paranoid = false, const std::string& branch = "disk",
                   const std::string& parent = "") {
    ImportOptions options;
    options.source = source;
    options.branch = branch;
    options.parent = parent;
    options.paranoid = paranoid;
    if (fs::is_regular_file(source) && !source.ends_with(".tar")) options.reader = "direct";
    auto report = Must(Import(*library_, options));
    Must(library_->Refresh());
    return report;
  }
  std::string Content(const std::string& path, uint64_t offset = 0) {
    const auto head = Must(library_->snapshot()->Branch("disk"));
    const TreeReader reader(library_);
    std::string bytes;
    const Manifest manifest = Must(ReadManifest(library_->objects(), head->manifest));
    Must(reader.Read(Must(reader.Find(manifest.root, path)), offset, 100, &bytes));
    return bytes;
  }
};

struct statx Stat(const std::string& path) {
  struct statx st {};
  EXPECT_EQ(statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &st), 0) << path;
  return st;
}
// Other bytes, as many; the mtime as it was.
void ChangeInSecret(const std::string& path, const std::string& bytes) {
  const auto before = Stat(path);
  ASSERT_EQ(before.stx_size, bytes.size());
  std::ofstream(path, std::ios::in | std::ios::out) << bytes;
  const timespec times[] = {{0, UTIME_OMIT}, {before.stx_mtime.tv_sec, static_cast<long>(before.stx_mtime.tv_nsec)}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
}

TEST_F(UnchangedFilesTest, OfADirectory) {
  const std::string top = directory_ / "source";
  fs::create_directories(top + "/sub");
  for (const char* name : {"/a", "/b", "/sub/c"}) std::ofstream(top + name) << "one";
  std::ofstream(top + "/empty");
  fs::create_hard_link(top + "/a", top + "/sub/link");
  const auto first = Run(top);
  EXPECT_EQ(first.unchanged_files, 0U);
  // Written in the moment of that import, for all that a clock can say: read again.
  const auto second = Run(top);
  EXPECT_FALSE(second.changed);
  EXPECT_EQ(second.unchanged_files, 0U);
  sleep(4);
  EXPECT_EQ(Run(top).unchanged_files, 0U);
  const auto third = Run(top);
  EXPECT_EQ(third.unchanged_files, 3U);
  EXPECT_EQ(third.tree, first.tree);
  EXPECT_EQ(third.bytes, first.bytes);
  EXPECT_EQ(Run(top, /*paranoid=*/true).unchanged_files, 0U);

  ChangeInSecret(top + "/b", "two");
  const auto changed = Run(top);
  EXPECT_TRUE(changed.changed);
  EXPECT_EQ(changed.unchanged_files, 2U);
  EXPECT_EQ(Content("/b"), "two");
  EXPECT_EQ(Content("/sub/c"), "one");
  EXPECT_EQ(Content("/sub/link"), "one");
  // A new branch from this one, and facts that are gone or damaged.
  EXPECT_EQ(Run(top, false, "other", "disk").unchanged_files, 2U);
  fs::resize_file(SourceFactsPath(path(), "disk"), 10);
  EXPECT_EQ(Run(top).unchanged_files, 0U);
  EXPECT_EQ(Run(top).unchanged_files, 2U);  // b is too young
  fs::remove_all(path() + "/facts");
  EXPECT_EQ(Run(top).unchanged_files, 0U);
}

// In a copy of a directory every file is new by its inode and ctime: it is read, and known again by its fingerprint.
TEST_F(UnchangedFilesTest, SmallFilesOfACopy) {
  const std::string top = directory_ / "source", copy = directory_ / "copy";
  fs::create_directories(top + "/sub");
  for (const char* name : {"/a", "/b", "/sub/c", "/sub/d"}) std::ofstream(top + name) << RandomBytes(40'000, 1) << name;
  std::ofstream(top + "/empty");
  fs::create_hard_link(top + "/sub/c", top + "/link");
  const auto first = Run(top);
  EXPECT_EQ(first.known_files, 0U);
  // Not by its times: not even the mtimes are those of the first.
  ASSERT_TRUE(Shell(fmt::format("cp -r --preserve=links {0} {1} && touch -d @5 {1}/a", top, copy)));
  const auto second = Run(copy);
  EXPECT_TRUE(second.changed);
  EXPECT_EQ(second.known_files, 4U);
  EXPECT_EQ(second.unchanged_files, 0U);
  EXPECT_EQ(second.bytes, first.bytes);
  EXPECT_EQ(Content("/link"), RandomBytes(40'000, 1).substr(0, 100));

  std::string other = RandomBytes(40'000, 1) + "/b";
  other[39'999] ^= 1;
  ChangeInSecret(copy + "/b", other);
  std::ofstream(copy + "/a", std::ios::app) << "longer";
  const auto third = Run(copy);
  EXPECT_TRUE(third.changed);
  EXPECT_EQ(third.known_files, 2U);
  EXPECT_EQ(Content("/b", 39'990), other.substr(39'990));
  EXPECT_EQ(Content("/a", 40'000), "/alonger");
  // Fingerprints stay with what is not even read: here an archive, which has nothing else, knows all.
  sleep(4);
  Run(copy);
  EXPECT_EQ(Run(copy).unchanged_files, 4U);
  ASSERT_TRUE(Shell(fmt::format("tar --format=posix -C {} -cf {} .", copy, directory_ / "copy.tar")));
  const auto archive = Run(directory_ / "copy.tar");
  EXPECT_FALSE(archive.changed);
  EXPECT_EQ(archive.known_files, 4U);
  EXPECT_EQ(Run(directory_ / "copy.tar").known_files, 4U);
  EXPECT_EQ(Run(directory_ / "copy.tar", /*paranoid=*/true).known_files, 0U);
}

// Large ones where size and mtime promise what the library has. A promise that does not hold costs time alone.
TEST_F(UnchangedFilesTest, LargeFilesOfACopy) {
  const std::string top = directory_ / "source", copy = directory_ / "copy";
  fs::create_directories(top);
  const std::string noise = RandomBytes(5 << 20, 11);
  for (const char* name : {"/a", "/b", "/c", "/d", "/e"}) std::ofstream(top + name) << noise << name;
  std::ofstream(top + "/sparse") << "x";
  fs::resize_file(top + "/sparse", 40 << 20);
  fs::create_hard_link(top + "/a", top + "/link");
  const auto first = Run(top);
  ASSERT_TRUE(Shell(fmt::format("cp -a --sparse=always {} {}", top, copy)));
  const auto second = Run(copy);
  EXPECT_FALSE(second.changed);
  EXPECT_EQ(second.tree, first.tree);
  EXPECT_EQ(second.bytes, first.bytes);
  EXPECT_EQ(second.unchanged_files, 0U);
  EXPECT_EQ(second.known_files, 6U);

  std::string lie = noise + "/b";
  lie[3 << 20] ^= 1;
  ChangeInSecret(copy + "/b", lie);
  lie[0] ^= 1;
  ChangeInSecret(copy + "/e", lie);
  const auto third = Run(copy);
  EXPECT_TRUE(third.changed);
  EXPECT_EQ(third.known_files, 4U);
  EXPECT_EQ(Content("/b", (3 << 20) - 5), lie.substr((3 << 20) - 5, 100));
  EXPECT_EQ(Content("/e"), lie.substr(0, 100));
  EXPECT_EQ(Content("/link"), noise.substr(0, 100));
  EXPECT_EQ(Run(copy, /*paranoid=*/true).tree, third.tree);
}

TEST_F(UnchangedFilesTest, OfADiskAndWhatEachModeSees) {
  if (geteuid() != 0 || !fs::exists("/dev/loop-control")) GTEST_SKIP() << "loop mounts need root and loop devices";
  const std::string image = directory_ / "disk.raw", mnt = directory_ / "mnt";
  fs::create_directory(mnt);
  ASSERT_TRUE(Shell(fmt::format("truncate -s 64M {0} && mkfs.ext4 -q -F -b 4096 {0}", image)));
  const auto mount = [&] { return Shell(fmt::format("mount -o loop {} {}", image, mnt)); };
  const auto unmount = [&] { return Shell("umount " + mnt); };
  sleep(1);  // what has the time of mkfs is not trusted
  ASSERT_TRUE(mount());
  for (const char* name : {"/a", "/b", "/c"}) std::ofstream(mnt + name) << "one";
  std::ofstream(mnt + "/large") << std::string(6 << 20, 'L');
  fs::create_hard_link(mnt + "/a", mnt + "/link");
  sleep(3);
  std::ofstream(mnt + "/last") << "the newest ctime stands for the clock";
  const auto before = Stat(mnt + "/b");
  ASSERT_TRUE(unmount());
  const auto first = Run(image);
  EXPECT_EQ(first.unchanged_files, 0U);
  const auto again = Run(image);
  EXPECT_FALSE(again.changed);
  EXPECT_EQ(again.unchanged_files, 4U);  // all but `last`
  EXPECT_EQ(again.tree, first.tree);
  EXPECT_EQ(Run(image, true).unchanged_files, 0U);

  // Same size, same mtime, other bytes: the ctime tells.
  ASSERT_TRUE(mount());
  ChangeInSecret(mnt + "/c", "two");
  ASSERT_TRUE(unmount());
  const auto changed = Run(image);
  EXPECT_TRUE(changed.changed);
  EXPECT_EQ(changed.unchanged_files, 3U);
  EXPECT_EQ(Content("/sda/c"), "two");
  EXPECT_EQ(Content("/sda/b"), "one");

  // With the ctime forged nothing tells, and only --paranoid sees it.
  ASSERT_TRUE(mount());
  ChangeInSecret(mnt + "/b", "two");
  std::ofstream(mnt + "/new") << "new";
  ASSERT_TRUE(unmount());
  const uint64_t extra = static_cast<uint64_t>(before.stx_ctime.tv_nsec) << 2;
  for (const std::string& field :
       {fmt::format("ctime @{}", before.stx_ctime.tv_sec), fmt::format("ctime_extra {}", extra)}) {
    ASSERT_TRUE(Shell(fmt::format("debugfs -w -R 'set_inode_field /b {}' {} >/dev/null 2>&1", field, image)));
  }
  ASSERT_TRUE(mount());
  const auto forged = Stat(mnt + "/b");
  EXPECT_EQ(forged.stx_ctime.tv_sec, before.stx_ctime.tv_sec);
  EXPECT_EQ(forged.stx_ctime.tv_nsec, before.stx_ctime.tv_nsec);
  ASSERT_TRUE(unmount());
  EXPECT_TRUE(Run(image).changed);  // there is a new file
  EXPECT_EQ(Content("/sda/b"), "one");
  EXPECT_EQ(Content("/sda/new"), "new");
  EXPECT_TRUE(Run(image, /*paranoid=*/true).changed);
  EXPECT_EQ(Content("/sda/b"), "two");
}

// Files that the maker of a filesystem put there have the times that it pleased, and may have kept them with other
// bytes.
TEST_F(UnchangedFilesTest, WhatMkfsWroteIsNotTrusted) {
  const std::string image = directory_ / "disk.raw", top = directory_ / "top";
  fs::create_directory(top);
  std::ofstream(top + "/version") << "1.2.3";
  for (int i = 0; i < 2; ++i) {
    fs::remove(image);
    ASSERT_TRUE(
        Shell(fmt::format("E2FSPROGS_FAKE_TIME=1700000000 mkfs.ext4 -q -F -d {} "
                          "-U 01234567-89ab-cdef-0123-456789abcdef {} 8M",
                          top, image)));
    ASSERT_TRUE(
        Shell(fmt::format("debugfs -w -R 'set_inode_field /version ctime @1700000000' {} >/dev/null 2>&1 && "
                          "debugfs -w -R 'set_inode_field /version mtime @1700000000' {} >/dev/null 2>&1",
                          image, image)));
    EXPECT_EQ(Run(image).unchanged_files, 0U);
    EXPECT_EQ(Content("/sda/version"), i == 0 ? "1.2.3" : "1.2.4");
    std::ofstream(top + "/version") << "1.2.4";
  }
}

TEST(SparseFileTest, TakesWhatFilefragPrints) {
  const std::string head =
      "Filesystem type is: ef53\nFile size of /proc/self/fd/0 is 3145728 (3145728 blocks of 1 bytes)\n"
      " ext:     logical_offset:        physical_offset: length:   expected: flags:\n";
  const std::string end = "/proc/self/fd/0: 2 extents found\n";
  EXPECT_EQ(ParseFilefrag(head +
                          "   0:     4096..    8191:     40960..     45055:   4096:       4096: \n"
                          "   1:    12288..   16383:     49152..     53247:   4096:      53248: unwritten\n"
                          "   2:  1048576.. 1052671:     90112..     94207:   4096:            : last\n" +
                          end),
            (std::vector<DataRange>{{4096, 4096}, {1048576, 4096}}));
  EXPECT_EQ(ParseFilefrag("Filesystem type is: ef53\n/proc/self/fd/0: 0 extents found\n"), std::vector<DataRange>());
  for (const std::string& bad :
       {std::string(), head, head + "   0:   5..   3: 1..1: 1: \n" + end, head + "   1:   0..   3: 1..1: 1: \n" + end,
        head + "   0:   0..   9: 1..1: 1: \n   1:   5..   7: 1..1: 1: \n" + end, head + "nonsense\n" + end}) {
    EXPECT_FALSE(ParseFilefrag(bad)) << bad;
  }
}

}  // namespace
}  // namespace mirage::testing
