// BranchFs without FUSE: what each operation does above a base version, and what survives.
#include "mirfs/branch_fs.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <random>

#include "tests/mirfs/branch_fs_fixture.h"

namespace {

// What the tested code asks of the disk for data files, by the call's name; and how many of the next are to fail.
std::mutex disk_mutex;
std::map<std::string, int> disk_calls;
int disk_failures = 0;
std::string disk_order;            // "d": a data file was synced, "l": a database's log
std::function<void()> before_log;  // called before a database's log is synced, with no lock held

int Sync(const char* call, long number, int descriptor) {
  const std::string file = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor));
  std::function<void()> before;
  {
    const std::lock_guard lock(disk_mutex);
    if (std::filesystem::path(file).filename().string().starts_with("log.")) {
      disk_order += 'l';
      before = before_log;
    }
    if (std::filesystem::path(file).parent_path().filename() == "data") {
      disk_order += 'd';
      ++disk_calls[call];
      if (disk_failures > 0) {
        --disk_failures;
        errno = EIO;
        return -1;
      }
    }
  }
  if (before) before();
  return static_cast<int>(syscall(number, descriptor));
}

}  // namespace

extern "C" int fsync(int descriptor) { return Sync("fsync", SYS_fsync, descriptor); }
extern "C" int fdatasync(int descriptor) { return Sync("fdatasync", SYS_fdatasync, descriptor); }

namespace mirage {
namespace {

TEST_F(BranchFsTest, ShowsTheBase) {
  ExpectEqual();
  EXPECT_FALSE(Commit());
  EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
  EXPECT_EQ(base_, Must(library_->snapshot()->Branch("main"))->manifest);
}

TEST_F(BranchFsTest, CreatesWritesAndRemoves) {
  BOTH(Make("new", FileType::kDirectory, 0700));
  BOTH(Make("new/file", FileType::kRegular, 0640));
  BOTH(Write("new/file", 0, "hello"));
  BOTH(Write("new/file", 10000, "far"));
  BOTH(Make("new/file", FileType::kRegular, 0640));
  BOTH(Make("new/socket", FileType::kSocket, 0640));
  BOTH(Make("new/symlink", FileType::kSymlink, 0777, std::string(1000, 't')));
  BOTH(Unlink("etc/passwd"));
  BOTH(Unlink("etc/passwd"));
  BOTH(RemoveDirectory("etc"));
  BOTH(RemoveDirectory("empty"));
  BOTH(Unlink("home"));
  BOTH(Make("etc/passwd", FileType::kDirectory, 0711));
  BOTH(Make("empty", FileType::kRegular, 0600));
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, ReplacedDirectoryDoesNotShowTheOldNames) {
  for (const char* file : {"etc/init/a", "etc/init/b"}) BOTH(Unlink(file));
  BOTH(RemoveDirectory("etc/init"));
  BOTH(Make("etc/init", FileType::kDirectory, 0755));
  BOTH(Make("etc/init/c", FileType::kRegular, 0644));
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, RenamedLowerDirectoryIsOneStep) {
  BOTH(Write("home/deep/er/x", 2, "changed before"));
  const ino_t inode = Must(paths_->Stat("home/deep/er/x")).st_ino;
  const auto records = [this] {
    size_t count = 0;
    Must(overlay_->db().VisitInodes([&](uint64_t, const InodeRecord&) { return ++count > 0; }));
    return count;
  };
  const size_t known = records();
  const uint64_t writes = overlay_->db().sequence();
  BOTH(Rename("home", "etc/house"));
  EXPECT_EQ(writes + 1, overlay_->db().sequence());
  EXPECT_LE(records(), known + 3);  // the directory and the two it was and is in: none of what is below
  EXPECT_EQ(inode, Must(paths_->Stat("etc/house/deep/er/x")).st_ino);
  BOTH(Write("etc/house/deep/b-too", 100, "changed after"));
  BOTH(Unlink("etc/house/fifo"));
  BOTH(Make("etc/house/deep/fresh", FileType::kRegular, 0644));
  BOTH(Rename("etc/house/deep/er", "er"));
  BOTH(Rename("er", "er/inside"));
  BOTH(Make("home", FileType::kDirectory, 0755));
  BOTH(Rename("etc", "home/etc"));
  EXPECT_EQ(inode, Must(paths_->Stat("er/x")).st_ino);
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, RenameFlags) {
  BOTH(Rename("etc/init/a", "etc/passwd", RENAME_NOREPLACE));
  BOTH(Rename("etc/init", "home/big", RENAME_EXCHANGE));
  BOTH(Rename("home", "home/deep", RENAME_EXCHANGE));
  BOTH(Rename("home/deep/er", "empty", RENAME_EXCHANGE));
  BOTH(Rename("etc/link", "etc/link2", RENAME_EXCHANGE));
  BOTH(Rename("etc", "empty"));
  BOTH(Rename("etc/link", "empty"));
  BOTH(Rename("home/deep", "etc/link"));
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, HardLinksOfLowerFiles) {
  BOTH(Link("etc/init/b", "etc/b-four"));
  BOTH(Write("home/deep/b-too", 4999, "tail"));
  BOTH(Unlink("etc/init/b"));
  BOTH(Link("etc/passwd", "home/passwd"));
  BOTH(Link("etc/link", "home/link"));
  BOTH(Rename("etc/b-four", "home/deep/b-too"));  // the same inode: nothing happens
  BOTH(Link("etc", "etc2"));
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, LinkGroupsOfUntouchedDirectoriesMoveAlong) {
  BOTH(Rename("home/deep", "deep"));
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, PartialWritesOfLargeLowerFiles) {
  BOTH(Write("home/big", 5000, "middle of a block"));
  BOTH(Write("home/big", 8192, Pattern(4096, 3)));
  BOTH(Write("home/big", kBigBytes - 3, "over the end"));
  BOTH(Punch("home/big", 20000, 30000));
  ExpectEqual();
  const auto data = fmt::format("{}/{:016x}", overlay_->data().path(), Must(paths_->Stat("home/big")).st_ino);
  struct stat host {};
  ASSERT_EQ(0, ::stat(data.c_str(), &host));
  EXPECT_LT(host.st_blocks * 512, 64 << 10);
  BOTH(Truncate("home/big", 300001));
  BOTH(Truncate("home/big", 400000));
  BOTH(Write("home/big", 350000, "in the zeros"));
  ExpectEqual();
  Must(fs_->SyncAll());
  Crash();
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, TruncationWithoutWriting) {
  BOTH(Truncate("home/big", 1000));
  BOTH(Truncate("etc/passwd", 0));
  BOTH(Truncate("etc/init/a", 100));
  ExpectEqual();
  Crash();  // names, attributes and lengths need no sync to survive a kill
  ExpectEqual();
  BOTH(Truncate("home/big", 5000));
  BOTH(Truncate("home/big", 5000));
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, AttributesOfLowerFilesCopyNothing) {
  BOTH(Chmod("home/big", 0600));
  BOTH(SetXattr("home/big", "user.a", "1"));
  BOTH(SetXattr("etc/passwd", "user.b", "2"));
  BOTH(RemoveXattr("etc/passwd", "user.base"));
  BOTH(RemoveXattr("etc/passwd", "user.base"));
  BOTH(Chmod("etc", 0700));
  EXPECT_TRUE(std::filesystem::is_empty(overlay_->data().path()));
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, TimesAndOwners) {
  AttributeChange change;
  change.mtime = change.uid = change.gid = true;
  change.stat.st_mtim = {1234567890, 123456789};
  change.stat.st_uid = 70000;
  change.stat.st_gid = 7;
  BOTH(Write("etc/init/a", 0, "S"));
  for (const char* path : {"etc/init/a", "etc/passwd", "home"}) {
    Must(fs_->SetAttributes(Must(paths_->Walk(path)).id(), change));
  }
  Reopen();
  for (const char* path : {"etc/init/a", "etc/passwd", "home"}) {
    const auto stat = Must(paths_->Stat(path));
    EXPECT_EQ(1234567890, stat.st_mtim.tv_sec) << path;
    EXPECT_EQ(123456789, stat.st_mtim.tv_nsec) << path;
    EXPECT_EQ(70000U, stat.st_uid) << path;
  }
  const auto published = Commit();
  const auto root = Must(ReadManifest(library_->objects(), published->manifest)).root;
  for (const char* path : {"etc/init/a", "etc/passwd", "home"}) {
    const auto entry = Must(TreeReader(library_).Find(root, path));
    EXPECT_EQ(1234567890, entry.mtime_sec) << path;
    EXPECT_EQ(123456789U, entry.mtime_nsec) << path;
    EXPECT_EQ(7U, entry.gid) << path;
  }
  EXPECT_EQ("", model_.DifferenceFrom(library_, published->manifest));
}

TEST_F(BranchFsTest, UnlinkedOpenFilesWorkOn) {
  for (const char* path : {"home/big", "etc/passwd"}) {
    auto found = Must(paths_->Walk(path));
    const Handle handle = Must(fs_->Open(found.id(), O_RDWR, false)).handle;
    BOTH(Unlink(path));
    EXPECT_EQ(2U, Must(fs_->Write(found.id(), handle, 3, "zz")));
    std::string bytes;
    Must(fs_->Read(found.id(), handle, 0, 5, &bytes));
    EXPECT_EQ("zz", bytes.substr(3));
    EXPECT_EQ(0U, Must(fs_->GetAttributes(found.id())).stat.st_nlink);
    if (path == std::string("home/big")) fs_->Release(found.id(), handle);
  }
  Must(fs_->SyncAll());
  EXPECT_FALSE(std::filesystem::is_empty(overlay_->data().path()));  // etc/passwd is open still
  Crash();
  EXPECT_TRUE(std::filesystem::is_empty(overlay_->data().path()));
  ExpectCommitEqual();
}

// Many creations take files that were made ahead, with numbers of their own.
TEST_F(BranchFsTest, ManyNewFilesTakeSpares) {
  BOTH(Make("many", FileType::kDirectory, 0755));
  const auto data_files = [&] {
    return std::distance(std::filesystem::directory_iterator(overlay_->data().path()), std::filesystem::directory_iterator());
  };
  std::set<ino_t> inodes;
  bool spares_seen = false;
  for (int i = 0; i < 400; ++i) {
    const std::string file = "many/file" + std::to_string(i);
    const auto before = ::time(nullptr);
    BOTH(Make(file, FileType::kRegular, 0644));
    const auto stat = Must(paths_->Stat(file));
    EXPECT_TRUE(inodes.insert(stat.st_ino).second) << file;
    EXPECT_EQ(0, stat.st_size);
    EXPECT_GE(stat.st_mtim.tv_sec, before);
    if (i % 3 != 0) BOTH(Write(file, 0, "content of " + file));
    if (i % 50 == 0) BOTH(Make("many/directory" + std::to_string(i), FileType::kDirectory, 0700));
    if (i == 200) Crash();  // spares are left on the disk
    spares_seen |= data_files() > i + 1;
  }
  EXPECT_TRUE(spares_seen);
  ExpectEqual();
  EXPECT_GE(data_files(), 400 * 2 / 3);
  CloseFs();
  for (const auto& entry : std::filesystem::directory_iterator(overlay_->data().path())) {
    EXPECT_TRUE(inodes.contains(std::stoull(entry.path().filename(), nullptr, 16))) << entry.path();
  }
  Open();
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, InodesStayOverCopyUpRenameAndRemount) {
  std::map<std::string, ino_t> before;
  for (const auto& path : model_.Paths()) before[path] = Must(paths_->Stat(path)).st_ino;
  for (const auto& path : model_.Paths()) BOTH(Write(path, 1, "x"));
  BOTH(Rename("etc/passwd", "etc/shadow"));
  Reopen();
  for (const auto& path : model_.Paths()) {
    EXPECT_EQ(before[path == "etc/shadow" ? "etc/passwd" : path], Must(paths_->Stat(path)).st_ino) << path;
  }
}

TEST_F(BranchFsTest, UnsyncedBytesMayBeOlderButNeverForeign) {
  const std::string before = model_.Find("home/big")->bytes;
  BOTH(Write("home/big", 4096, std::string(4096, 'N')));
  Crash();
  const std::string after = Must(paths_->Read("home/big"));
  EXPECT_TRUE(after == before || after == model_.Find("home/big")->bytes);
  model_.Find("home/big")->bytes = after;
  BOTH(Write("home/big", 8192, std::string(4096, 'M')));
  EXPECT_EQ(0, paths_->Sync("home/big"));
  Crash();
  ExpectEqual();
}

TEST_F(BranchFsTest, FsyncIsForTheTimesToo) {
  BOTH(Write("etc/init/a", 0, "S"));
  const auto file = Must(paths_->Walk("etc/init/a"));
  for (const bool data_only : {true, false}) {
    {
      const std::lock_guard lock(disk_mutex);
      disk_calls.clear();
    }
    Must(fs_->Sync(file.id(), 0, data_only));
    const std::lock_guard lock(disk_mutex);
    EXPECT_EQ(data_only ? 1 : 0, disk_calls["fdatasync"]);
    EXPECT_EQ(data_only ? 0 : 1, disk_calls["fsync"]);
  }
}

TEST_F(BranchFsTest, AnErrorMetInTheBackgroundIsToldToTheNextFsync) {
  const std::string before = model_.Find("home/big")->bytes;
  BOTH(Write("home/big", 4096, std::string(4096, 'N')));
  {
    const std::lock_guard lock(disk_mutex);
    disk_failures = 1;
  }
  EXPECT_FALSE(fs_->SyncAll());
  EXPECT_FALSE(fs_->SyncAll()) << "told to nobody who wrote";
  EXPECT_EQ(EIO, paths_->Sync("home/big"));
  EXPECT_EQ(0, paths_->Sync("home/big"));
  Must(fs_->SyncAll());
  ExpectEqual();

  // Nor is a version made of it unasked, when nobody could be told.
  BOTH(Write("home/big", 8192, std::string(4096, 'M')));
  {
    const std::lock_guard lock(disk_mutex);
    disk_failures = 1;
  }
  EXPECT_FALSE(fs_->SyncAll());
  EXPECT_FALSE(fs_->Close());
  Crash();
  ExpectEqual();
}

TEST_F(BranchFsTest, BlocksThatCouldNotBeWrittenAreNeverZeros) {
  BOTH(Write("home/big", 4096, std::string(4096, 'N')));
  EXPECT_EQ(0, paths_->Sync("home/big"));
  EXPECT_EQ(0, paths_->Write("home/big", 8192, std::string(4096, 'M')));
  BOTH(Write("home/big", 16384, std::string(4096, 'O')));
  // A page that could not be written, and that the kernel has dropped since.
  const int data = open(overlay_->data().PathOf(Must(paths_->Walk("home/big")).id()).c_str(), O_RDWR);
  ASSERT_GE(data, 0);
  const bool punched = fallocate(data, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096) == 0;
  close(data);
  if (!punched) GTEST_SKIP() << "no filesystem for it here";
  {
    const std::lock_guard lock(disk_mutex);
    disk_failures = 1;
  }
  EXPECT_EQ(EIO, paths_->Sync("home/big"));
  EXPECT_EQ(0, paths_->Sync("home/big"));
  ExpectEqual();
  Crash();
  ExpectEqual();
}

TEST_F(BranchFsTest, ATruncationIsDoneOrNotWhenItsDaemonDies) {
  constexpr size_t kCut = 300000, kGrown = 400000;
  BOTH(Write("home/big", 4096, std::string(4096, 'N')));
  EXPECT_EQ(0, paths_->Sync("home/big"));
  const std::string before = model_.Find("home/big")->bytes, cut = before.substr(0, kCut);
  std::vector<std::string> copies;
  {
    const std::lock_guard lock(disk_mutex);
    before_log = [&] { copies.push_back(CopyOverlay(Database::kAsItLies)); };  // it is locked
    disk_order.clear();
  }
  BOTH(Truncate("home/big", kCut));
  {
    const std::lock_guard lock(disk_mutex);
    before_log = {};
    EXPECT_TRUE(disk_order.ends_with("dl")) << disk_order;
  }
  EXPECT_FALSE(copies.empty());
  copies.push_back(CopyOverlay());
  for (const std::string& copy : copies) {
    GoOnWith(copy);
    const std::string after = Must(paths_->Read("home/big"));
    EXPECT_TRUE(after == before || after == cut) << copy;
    if (after != cut) continue;
    EXPECT_EQ(0, paths_->Truncate("home/big", kGrown));
    EXPECT_TRUE(Must(paths_->Read("home/big")) == cut + std::string(kGrown - kCut, '\0')) << copy;
  }
  BOTH(Truncate("home/big", kGrown));
  ExpectCommitEqual();
}

TEST_F(BranchFsTest, WhatARenameReplacedGoesOnlyWhenTheNewBytesAreOnTheDisk) {
  BOTH(Write("home/big", 4096, "a data file"));
  const std::pair<const char*, std::function<void()>> roads[] = {
      {"fsync of another", [&] { EXPECT_EQ(0, paths_->Sync("etc/init/a")); }},
      {"fsync of a directory", [&] { EXPECT_EQ(0, paths_->Sync("home")); }},
      {"a truncation", [&] { BOTH(Truncate("home/big", 300000)); }},
      {"the background", [&] { Must(fs_->SyncAll()); }}};
  for (const auto& [road, sync] : roads) {
    BOTH(Chmod("etc/init/a", 0600));  // or fsync has nothing to do
    for (const char* target : {"etc/passwd", "home/deep/er/x"}) {
      BOTH(Make("new", FileType::kRegular, 0644));
      BOTH(Write("new", 0, road));
      {
        const std::lock_guard lock(disk_mutex);
        disk_order.clear();
      }
      BOTH(Rename("new", target));
      {
        const std::lock_guard lock(disk_mutex);
        EXPECT_FALSE(disk_order.contains('d')) << "a rename waits for nothing";
        disk_order.clear();
      }
      if (target == std::string("etc/passwd")) continue;
      sync();
      const std::lock_guard lock(disk_mutex);
      EXPECT_GE(disk_order.find('l'), 2u) << road << ": " << disk_order;
      EXPECT_TRUE(disk_order.contains('l')) << road;
    }
  }
  ExpectEqual();

  // A file that is partly lower, under another's name, has its new bytes before it has the name.
  BOTH(Make("etc/big", FileType::kRegular, 0644));
  BOTH(Write("home/big", 8192, std::string(4096, 'R')));
  {
    const std::lock_guard lock(disk_mutex);
    disk_order.clear();
  }
  BOTH(Rename("home/big", "etc/big"));
  {
    const std::lock_guard lock(disk_mutex);
    EXPECT_TRUE(disk_order.contains('d'));
  }
  Crash();
  ExpectEqual();

  // Its bytes are lost: one sync of the names fails for it, and its own.
  BOTH(Make("new", FileType::kRegular, 0644));
  BOTH(Write("new", 0, "new"));
  BOTH(Rename("new", "etc/passwd"));
  {
    const std::lock_guard lock(disk_mutex);
    disk_failures = 1;
  }
  EXPECT_EQ(EIO, paths_->Sync("home"));
  EXPECT_EQ(0, paths_->Sync("home"));
  EXPECT_EQ(EIO, paths_->Sync("etc/passwd"));
  EXPECT_EQ(0, paths_->Sync("etc/passwd"));
}

TEST_F(BranchFsTest, ListingStaysStableWhileNamesComeAndGo) {
  auto etc = Must(paths_->Walk("etc"));
  const Handle handle = Must(fs_->OpenDirectory(etc.id()));
  std::vector<std::string> names;
  uint64_t offset = 0;
  const auto take = [&](int count) {
    Must(fs_->ReadDirectory(etc.id(), handle, offset, false, [&](const DirectoryItem& item) {
      if (count-- == 0) return false;
      offset = item.next_offset;
      names.emplace_back(item.name);
      return true;
    }));
  };
  take(3);
  BOTH(Make("etc/a-first", FileType::kRegular, 0644));
  BOTH(Unlink("etc/link"));
  take(100);
  EXPECT_EQ((std::vector<std::string>{".", "..", "init", "link", "passwd"}), names);
  offset = 0;  // rewinddir
  names.clear();
  take(100);
  EXPECT_EQ((std::vector<std::string>{".", "..", "a-first", "init", "passwd"}), names);
  fs_->ReleaseDirectory(etc.id(), handle);
}

TEST_F(BranchFsTest, AccessControlListsKeepInStepWithTheMode) {
  // version 2; user::rw-, user:1000:rwx, group::r--, mask::rwx, other::---
  const auto entry = [](uint16_t tag, uint16_t permissions, uint32_t id) {
    std::string out;
    out.append(reinterpret_cast<const char*>(&tag), 2).append(reinterpret_cast<const char*>(&permissions), 2);
    return out.append(reinterpret_cast<const char*>(&id), 4);
  };
  const std::string acl = std::string("\2\0\0\0", 4) + entry(1, 6, ~0U) + entry(2, 7, 1000) + entry(4, 4, ~0U) +
                          entry(16, 7, ~0U) + entry(32, 0, ~0U);
  ASSERT_EQ(0, paths_->SetXattr("etc/passwd", "system.posix_acl_access", acl));
  EXPECT_EQ(0670U, Must(paths_->Stat("etc/passwd")).st_mode & 07777);
  ASSERT_EQ(0, paths_->Chmod("etc/passwd", 0640));
  const auto stored = Must(fs_->GetXattr(Must(paths_->Walk("etc/passwd")).id(), "system.posix_acl_access"));
  EXPECT_EQ(4, stored[4 + 3 * 8 + 2]);  // the mask, not the owning group
  EXPECT_EQ(4, stored[4 + 2 * 8 + 2]);
  ASSERT_EQ(0, paths_->SetXattr("empty", "system.posix_acl_default", acl));
  auto empty = Must(paths_->Walk("empty"));
  const auto made = Must(fs_->MakeNode(empty.id(), "child", S_IFREG | 0644, 0, {.umask = 077}));
  EXPECT_EQ(0640U, made.stat.st_mode & 07777);
  const auto directory = Must(fs_->MakeNode(empty.id(), "dir", S_IFDIR | 0777, 0, {.umask = 077}));
  EXPECT_EQ(acl, Must(fs_->GetXattr(directory.node, "system.posix_acl_default")));
  const auto plain = Must(fs_->MakeNode(kRootNode, "plain", S_IFREG | 0666, 0, {.umask = 027}));
  EXPECT_EQ(0640U, plain.stat.st_mode & 07777);
  EXPECT_EQ(EINVAL, paths_->SetXattr("etc/passwd", "system.posix_acl_access", "rubbish"));
}

TEST_F(BranchFsTest, SetgidDirectoriesPassTheirGroupOn) {
  AttributeChange change;
  change.mode = change.gid = true;
  change.stat.st_mode = 02775;
  change.stat.st_gid = 50;
  const auto empty = Must(paths_->Walk("empty")).id();
  Must(paths_->Walk("empty"));
  auto held = Must(paths_->Walk("empty"));
  Must(fs_->SetAttributes(held.id(), change));
  const auto file = Must(fs_->MakeNode(empty, "file", S_IFREG | 0644, 0, {.uid = 5, .gid = 5}));
  EXPECT_EQ(50U, file.stat.st_gid);
  EXPECT_EQ(5U, file.stat.st_uid);
  const auto directory = Must(fs_->MakeNode(empty, "dir", S_IFDIR | 0755, 0, {.uid = 5, .gid = 5}));
  EXPECT_EQ(02755U, directory.stat.st_mode & 07777);
}

TEST_F(BranchFsTest, BadNames) {
  EXPECT_EQ(ENAMETOOLONG, paths_->Make(std::string(256, 'n'), FileType::kRegular, 0644));
  EXPECT_EQ(0, paths_->Make(std::string(255, 'n'), FileType::kRegular, 0644));
  EXPECT_EQ(ENOTDIR, paths_->Make("etc/passwd/x", FileType::kRegular, 0644));
  EXPECT_EQ(ENODATA, fs_->GetXattr(kRootNode, "user.none").error().code);
}

}  // namespace
}  // namespace mirage
