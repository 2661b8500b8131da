// The real disk behind Env, and locks on it.
#include "store/env.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "store/file_lock.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::Must;
using testing::TemporaryDirectory;

class EnvTest : public ::testing::Test {
 protected:
  std::string operator/(const std::string& name) const { return directory_ / name; }
  bool Exists(const std::string& name) {
    return std::filesystem::exists(std::filesystem::symlink_status(*this / name));
  }

  Env& env_ = Env::Default();
  TemporaryDirectory directory_;
};

TEST_F(EnvTest, FilesReadAndWrite) {
  const auto file = Must(env_.Open(*this / "f", OpenMode::kCreate));
  Must(file->WriteAt(3, "abc"));
  Must(file->Sync());
  EXPECT_EQ(Must(file->Size()), 6U);
  std::string bytes = "left from before";
  Must(file->ReadAt(2, 100, &bytes));
  EXPECT_EQ(bytes, std::string_view("\0abc", 4));
  Must(file->ReadAt(6, 10, &bytes));
  EXPECT_EQ(bytes, "");
  Must(file->Truncate(4));
  Must(file->ReadAt(0, 10, &bytes));
  EXPECT_EQ(bytes, std::string_view("\0\0\0a", 4));
}

TEST_F(EnvTest, OpenModes) {
  EXPECT_EQ(env_.Open(*this / "f", OpenMode::kRead).error().code, ENOENT);
  EXPECT_EQ(env_.Open(*this / "f", OpenMode::kReadWrite).error().code, ENOENT);
  Must(env_.Open(*this / "f", OpenMode::kOpenOrCreate));
  EXPECT_EQ(env_.Open(*this / "f", OpenMode::kCreate).error().code, EEXIST);
  const auto file = Must(env_.Open(*this / "f", OpenMode::kRead));
  const Status status = file->WriteAt(0, "x");
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find(*this / "f"), std::string::npos) << "the error names the file";
}

TEST_F(EnvTest, WhatIsMadeInASharedDirectoryIsShared) {
  const auto mode = [&](const std::string& name) {
    return static_cast<unsigned>(std::filesystem::symlink_status(*this / name).permissions());
  };
  const mode_t umask_before = ::umask(077);
  Must(env_.MakeDirectory(*this / "shared", 0700));
  ASSERT_EQ(::chmod((*this / "shared").c_str(), 02770), 0);
  Must(env_.MakeDirectory(*this / "shared/d", 0700));
  Must(env_.Open(*this / "shared/d/created", OpenMode::kCreate));
  Must(env_.Open(*this / "shared/d/opened", OpenMode::kOpenOrCreate));
  Must(WriteFileAtomically(env_, *this / "shared/d/written", "x"));
  EXPECT_EQ(mode("shared/d"), 02770U);
  for (const char* name : {"created", "opened", "written"}) EXPECT_EQ(mode("shared/d/" + std::string(name)), 0660U) << name;
  // Either bit alone shares nothing.
  for (const mode_t alone : {mode_t{0770}, mode_t{02750}}) {
    const std::string name = fmt::format("private{:o}", alone);
    Must(env_.MakeDirectory(*this / name, 0700));
    ASSERT_EQ(::chmod((*this / name).c_str(), alone), 0);
    Must(env_.MakeDirectory(*this / name + "/d", 0700));
    Must(env_.Open(*this / name + "/f", OpenMode::kCreate));
    EXPECT_EQ(mode(name + "/d") & 0777, 0700U);
    EXPECT_EQ(mode(name + "/f"), 0600U);
  }
  ::umask(umask_before);
}

TEST_F(EnvTest, DirectoriesListAndStat) {
  Must(env_.MakeDirectory(*this / "d", 0700));
  EXPECT_EQ(env_.MakeDirectory(*this / "d", 0700).error().code, EEXIST);
  for (const char* name : {"b", "a", "\xff"}) Must(env_.Open(*this / "d/" + name, OpenMode::kCreate));
  EXPECT_EQ(Must(env_.List(*this / "d")), (std::vector<std::string>{"a", "b", "\xff"}));
  std::filesystem::create_directory_symlink("d", *this / "link");
  EXPECT_TRUE(Must(env_.Stat(*this / "d")).is_directory);
  EXPECT_FALSE(Must(env_.Stat(*this / "link")).is_directory);
  EXPECT_EQ(env_.Stat(*this / "none").error().code, ENOENT);
  EXPECT_EQ(env_.RemoveDirectory(*this / "d").error().code, ENOTEMPTY);
  Must(env_.Rename(*this / "d/a", *this / "d/b"));
  Must(env_.SyncDirectory(*this / "d"));
  EXPECT_EQ(Must(env_.List(*this / "d")).size(), 2U);
}

TEST_F(EnvTest, WholeFiles) {
  Must(WriteFileAtomically(env_, *this / "f", "one"));
  Must(WriteFileAtomically(env_, *this / "f", "two!"));
  EXPECT_EQ(Must(ReadWholeFile(env_, *this / "f", 4)), "two!");
  EXPECT_EQ(ReadWholeFile(env_, *this / "f", 3).error().code, EFBIG);
  EXPECT_EQ(Must(env_.List(directory_.path())), std::vector<std::string>{"f"});
  // What cannot be put in place leaves nothing behind.
  Must(env_.MakeDirectory(*this / "d", 0700));
  EXPECT_FALSE(WriteFileAtomically(env_, *this / "d", "x"));
  EXPECT_EQ(Must(env_.List(directory_.path())), (std::vector<std::string>{"d", "f"}));
}

TEST_F(EnvTest, RemoveTreeFollowsNoSymlink) {
  std::filesystem::create_directories(*this / "kept/inside");
  std::filesystem::create_directories(*this / "gone/a/b");
  std::filesystem::create_directory_symlink("../kept", *this / "gone/link");
  std::ofstream(*this / "gone/a/file") << "x";
  Must(RemoveTree(env_, *this / "gone"));
  Must(RemoveTree(env_, *this / "gone"));
  EXPECT_FALSE(Exists("gone"));
  EXPECT_TRUE(Exists("kept/inside"));
}

class FileLockTest : public EnvTest {
 protected:
  Result<FileLock> Lock(LockMode mode, int timeout_ms = 0, std::string_view purpose = "a test") {
    return FileLock::Acquire(env_, *this / "lock", mode, timeout_ms, purpose);
  }
};

TEST_F(FileLockTest, SharedWithSharedAlone) {
  FileLock one = Must(Lock(LockMode::kShared));
  FileLock two = Must(Lock(LockMode::kShared));
  EXPECT_EQ(Lock(LockMode::kExclusive).error().code, EAGAIN);
  one.Release();
  EXPECT_FALSE(one.held());
  EXPECT_EQ(Lock(LockMode::kExclusive).error().code, EAGAIN);
  two = Must(Lock(LockMode::kShared));  // takes another, then gives back its own
  EXPECT_FALSE(Lock(LockMode::kExclusive));
  two.Release();
  const FileLock three = Must(Lock(LockMode::kExclusive));
  EXPECT_EQ(Lock(LockMode::kShared).error().code, EAGAIN);
}

TEST_F(FileLockTest, NamesTheHolderForAsLongAsItHolds) {
  FileLock holder = Must(Lock(LockMode::kExclusive, 0, "import of debian"));
  const Error error = Lock(LockMode::kShared).error();
  EXPECT_NE(error.message.find(std::to_string(::getpid())), std::string::npos) << error.message;
  EXPECT_NE(error.message.find("import of debian"), std::string::npos) << error.message;
  holder.Release();
  const FileLock reader = Must(Lock(LockMode::kShared));
  const Error later = Lock(LockMode::kExclusive).error();
  EXPECT_EQ(later.message.find("import of debian"), std::string::npos) << later.message;
}

TEST_F(FileLockTest, WaitsNoLongerThanTold) {
  using Clock = std::chrono::steady_clock;
  FileLock holder = Must(Lock(LockMode::kExclusive));
  const auto begin = Clock::now();
  EXPECT_FALSE(Lock(LockMode::kExclusive, 100));
  EXPECT_GE(Clock::now() - begin, std::chrono::milliseconds(100));
  std::jthread release([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    holder.Release();
  });
  EXPECT_TRUE(Lock(LockMode::kExclusive, 60'000));
}

TEST_F(FileLockTest, ADeadProcessHoldsNone) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = Lock(LockMode::kExclusive, 0, "a child");
    const char byte = lock ? 'y' : 'n';
    if (::write(ready[1], &byte, 1) == 1) ::pause();
    ::_exit(1);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  EXPECT_NE(Lock(LockMode::kExclusive).error().message.find("a child"), std::string::npos);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(Lock(LockMode::kExclusive));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(FileLockTest, ARemovedFileKeepsNobodyOut) {
  FileLock holder = Must(Lock(LockMode::kExclusive));
  std::jthread replace([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    Must(env_.Unlink(*this / "lock"));
    holder.Release();
  });
  const FileLock next = Must(Lock(LockMode::kExclusive, 60'000));
  EXPECT_TRUE(Exists("lock"));
  EXPECT_FALSE(Lock(LockMode::kExclusive));
}

}  // namespace
}  // namespace mirage
