// The model of the disk that the crash tests believe in.
#include "tests/testing/fault_env.h"

#include <set>

#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

using Loss = FaultEnv::Loss;

class FaultEnvTest : public ::testing::Test {
 protected:
  FaultEnvTest() : env_(directory_.path()) {}
  std::string operator/(const std::string& name) const { return directory_ / name; }
  void Write(const std::string& name, const std::string& bytes, bool sync) {
    const auto file = Must(env_.Open(*this / name, OpenMode::kOpenOrCreate));
    Must(file->WriteAt(0, bytes));
    if (sync) Must(file->Sync());
  }
  std::string Read(const std::string& name) {
    const auto bytes = ReadWholeFile(env_, *this / name, 1 << 20);
    return bytes ? *bytes : "none";
  }

  TemporaryDirectory directory_;
  FaultEnv env_;
};

TEST_F(FaultEnvTest, NamesAndBytesAreSyncedApart) {
  Write("bytes", "synced", true);
  Write("name", "not synced", false);
  Must(env_.SyncDirectory(directory_.path()));
  Write("bytes", "SYN", false);
  Write("neither", "x", true);
  EXPECT_EQ(env_.Unsynced(), (std::vector<std::string>{"bytes", "name", " neither"}));
  env_.Restart(Loss::kUnsynced, 0);
  EXPECT_EQ(Read("bytes"), "synced");
  EXPECT_EQ(Read("name"), "");
  EXPECT_EQ(Read("neither"), "none");
  EXPECT_TRUE(env_.Unsynced().empty());
}

TEST_F(FaultEnvTest, RenameOverAFileThatWasNotSyncedLeavesAnEmptyOne) {
  Write("f", "old", true);
  Must(env_.SyncDirectory(directory_.path()));
  Write("f.tmp", "new", false);
  Must(env_.Rename(*this / "f.tmp", *this / "f"));
  env_.Restart(Loss::kUnsyncedBytes, 0);
  EXPECT_EQ(Read("f"), "");
  EXPECT_EQ(Read("f.tmp"), "none");
}

TEST_F(FaultEnvTest, RenameBetweenDirectories) {
  for (const bool sync_target : {true, false}) {
    for (const char* name : {"a", "b"}) Must(env_.MakeDirectory(*this / name, 0700));
    Write("a/f", "moved", true);
    for (const char* name : {"", "/a", "/b"}) Must(env_.SyncDirectory(directory_.path() + name));
    Must(env_.Rename(*this / "a/f", *this / "b/f"));
    Must(env_.SyncDirectory(*this / (sync_target ? "b" : "a")));
    env_.Restart(Loss::kUnsynced, 0);
    EXPECT_EQ(Read("b/f"), "moved");
    EXPECT_EQ(Read("a/f"), sync_target ? "moved" : "none") << "the old name goes with a sync of its own directory";
    for (const char* name : {"a", "b"}) Must(RemoveTree(env_, *this / name));
  }
}

TEST_F(FaultEnvTest, SomeIsAPrefixOfNamesAndOfWrites) {
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Must(RemoveTree(env_, *this / "d"));
    Must(env_.MakeDirectory(*this / "d", 0700));
    Must(env_.SyncDirectory(directory_.path()));
    Write("d/one", "", true);
    Must(env_.SyncDirectory(*this / "d"));
    {
      const auto file = Must(env_.Open(*this / "d/one", OpenMode::kReadWrite));
      Must(file->WriteAt(0, "ab"));
      Must(file->WriteAt(2, "cd"));
    }
    Write("d/two", "", false);
    Write("d/three", "", false);
    env_.Restart(Loss::kSome, seed);
    const std::string bytes = Read("d/one");
    seen.insert(bytes);
    seen.insert(Read("d/two") + "," + Read("d/three"));
    for (size_t i = 0; i < bytes.size(); ++i) EXPECT_TRUE(bytes[i] == "abcd"[i] || bytes[i] == '\0') << bytes;
    EXPECT_TRUE(Read("d/two") == "" || Read("d/three") == "none") << "out of order";
  }
  for (const char* outcome : {"", "a", "ab", "abc", "abcd", ",", ",none", "none,none"}) {
    EXPECT_TRUE(seen.contains(outcome)) << "never seen: " << outcome;
  }
  EXPECT_TRUE(seen.contains(std::string("a\0", 2))) << "never zeros where bytes were due";
}

TEST_F(FaultEnvTest, StopsAtTheNumber) {
  Write("f", "before", true);  // create, write, sync
  EXPECT_EQ(env_.operations(), 3U);
  env_.StopAt(5);
  const auto file = Must(env_.Open(*this / "f", OpenMode::kReadWrite));
  Must(file->WriteAt(0, "BEFORE"));
  EXPECT_FALSE(file->WriteAt(0, "behind"));
  EXPECT_TRUE(env_.stopped());
  std::string bytes;
  EXPECT_FALSE(file->ReadAt(0, 6, &bytes)) << "a dead process reads nothing";
  EXPECT_FALSE(env_.Unlink(*this / "f"));
  env_.Restart(Loss::kNothing, 0);
  EXPECT_EQ(Read("f"), "BEFORE");
}

TEST_F(FaultEnvTest, AFullDiskKeepsHalfAWriteAndLetsRemove) {
  Write("f", "12345678", true);
  env_.FillAt(env_.operations() + 1);
  const auto file = Must(env_.Open(*this / "f", OpenMode::kReadWrite));
  EXPECT_EQ(file->WriteAt(8, "abcd").error().code, ENOSPC);
  EXPECT_EQ(Must(file->Size()), 10U);
  Must(file->Truncate(8));
  EXPECT_EQ(env_.MakeDirectory(*this / "d", 0700).error().code, ENOSPC);
  EXPECT_TRUE(env_.failed());
  env_.Heal();
  Must(file->WriteAt(8, "abcd"));
  Must(env_.Unlink(*this / "f"));
}

TEST_F(FaultEnvTest, AFailedSyncLosesWhatItHadToWrite) {
  Write("f", "old", true);
  Must(env_.SyncDirectory(directory_.path()));
  const auto file = Must(env_.Open(*this / "f", OpenMode::kReadWrite));
  Must(file->WriteAt(0, "new"));
  env_.FailAt(env_.operations() + 1, EIO);
  EXPECT_EQ(file->Sync().error().code, EIO);
  Must(file->Sync());
  EXPECT_EQ(Read("f"), "new");
  env_.Restart(Loss::kUnsynced, 0);
  EXPECT_EQ(Read("f"), "old");
}

}  // namespace
}  // namespace mirage::testing
