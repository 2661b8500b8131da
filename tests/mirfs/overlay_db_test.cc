// The overlay's database under a model: what is read, what a kill and a power cut leave, what a fault does.
#include "mirfs/overlay_db.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "mirfs/row_log.h"
#include "store/encoding.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

using Loss = FaultEnv::Loss;
using State = std::map<std::string, std::string>;

constexpr RowStore::Limits kSmall{.table_bytes = 4 << 10, .log_bytes = 64 << 10};
constexpr uint64_t kInodes = 24, kDirectories = 4;

uint32_t Seed() {
  const char* given = std::getenv("MIRAGE_TEST_SEED");
  return given ? static_cast<uint32_t>(std::stoul(given)) : std::random_device()();
}

State StateOf(const OverlayDb& db) {
  State state;
  Must(db.VisitInodes([&](uint64_t inode, const InodeRecord& record) {
    state[fmt::format("inode {}", inode)] = record.target;
    return true;
  }));
  for (uint64_t directory = 0; directory < kDirectories; ++directory) {
    std::string before;
    Must(db.VisitDirents(directory, [&](std::string_view name, const Dirent& dirent) {
      EXPECT_LT(before, name) << "in key order";
      before = name;
      state[fmt::format("name {} {}", directory, name)] = dirent.whiteout ? "-" : std::to_string(dirent.child);
      return true;
    }));
  }
  if (const uint64_t next = Must(db.NextInode()); next != 0) state["next"] = std::to_string(next);
  return state;
}

// One random batch, to the database's and to the model's taste.
void FillBatch(std::mt19937& random, OverlayDb::Batch& batch, State& state) {
  for (auto changes = 1 + random() % 3; changes > 0; --changes) {
    const uint64_t inode = 1 + random() % kInodes, directory = random() % kDirectories;
    const std::string name = fmt::format("n{}", random() % 12);
    const std::string inode_key = fmt::format("inode {}", inode), name_key = fmt::format("name {} {}", directory, name);
    switch (random() % 6) {
      case 0:
      case 1: {
        InodeRecord record;
        record.target.assign(random() % 200, static_cast<char>('a' + random() % 26));
        batch.PutInode(inode, record);
        state[inode_key] = record.target;
        break;
      }
      case 2:
        batch.DeleteInode(inode);
        state.erase(inode_key);
        break;
      case 3: {
        const bool whiteout = random() % 3 == 0;
        batch.PutDirent(directory, name, {.whiteout = whiteout, .child = inode, .type = FileType::kRegular});
        state[name_key] = whiteout ? "-" : std::to_string(inode);
        break;
      }
      case 4:
        batch.DeleteDirent(directory, name);
        state.erase(name_key);
        break;
      case 5:
        batch.PutNextInode(inode);
        state["next"] = std::to_string(inode);
        break;
    }
  }
}

class OverlayDbTest : public ::testing::Test {
 protected:
  OverlayDbTest() : seed_(Seed()), env_(directory_.path()), path_(directory_ / "db") {
    RecordProperty("seed", std::to_string(seed_));
    Must(OverlayDb::Open(env_, path_, true));
    Must(env_.SyncDirectory(directory_.path()));
  }
  std::unique_ptr<OverlayDb> Open(Env& env) { return Must(OverlayDb::Open(env, path_, false, kSmall)); }
  void StartAnew() {
    RemoveAll(path_);
    Must(OverlayDb::Open(Env::Default(), path_, true));
    env_.Restart(Loss::kNothing, 0);
  }
  size_t Files(const std::string& prefix) const {
    const auto names = Must(Env::Default().List(path_));
    return static_cast<size_t>(std::count_if(names.begin(), names.end(), [&](const auto& name) { return name.starts_with(prefix); }));
  }

  // Writes `batches` at most, with a sync now and then, until something fails. states_[k]: after k batches.
  struct Ran {
    size_t answered = 0, synced = 0;
    bool failed = false;
  };
  Ran Run(OverlayDb& db, std::mt19937& random, size_t batches) {
    Ran ran;
    states_ = {StateOf(db)};
    while (ran.answered < batches) {
      OverlayDb::Batch batch;
      states_.push_back(states_.back());
      FillBatch(random, batch, states_.back());
      ran.failed = !db.Write(batch);
      if (ran.failed) return ran;
      ++ran.answered;
      if (random() % 8 != 0) continue;
      const size_t before = ran.answered;
      ran.failed = !db.Sync();
      if (ran.failed) return ran;
      ran.synced = before;
    }
    return ran;
  }
  // "" if the database is as it was after one of batches [from, to].
  std::string NotBetween(const State& state, size_t from, size_t to) const {
    for (size_t k = from; k <= std::min(to, states_.size() - 1); ++k) {
      if (states_[k] == state) return "";
    }
    return fmt::format("not as after any of batches {} to {}", from, to);
  }

  const uint32_t seed_;
  TemporaryDirectory directory_;
  FaultEnv env_;
  const std::string path_;
  std::vector<State> states_;
};

TEST_F(OverlayDbTest, ReadsWhatWasWritten) {
  SCOPED_TRACE(fmt::format("MIRAGE_TEST_SEED={}", seed_));
  std::mt19937 random(seed_);
  State model;
  for (int round = 0; round < 6; ++round) {
    const auto db = Open(Env::Default());
    ASSERT_EQ(StateOf(*db), model);
    for (int i = 0; i < 300; ++i) {
      OverlayDb::Batch batch;
      FillBatch(random, batch, model);
      Must(db->Write(batch));
      const uint64_t inode = 1 + random() % kInodes;
      const auto record = Must(db->Inode(inode));
      const auto expected = model.find(fmt::format("inode {}", inode));
      ASSERT_EQ(record.has_value(), expected != model.end());
      ASSERT_EQ(record ? record->target : "", record ? expected->second : "");
    }
    ASSERT_EQ(StateOf(*db), model);
  }
  EXPECT_GT(Files("rows."), 0U) << "rows were applied";
  EXPECT_LE(Files("rows."), 12U) << "and tables merged";
  EXPECT_LE(Files("log."), 12U) << "what the tables hold leaves the log";
}

TEST_F(OverlayDbTest, FewRowsNeedNoTables) {
  std::mt19937 random(seed_);
  State model;
  {
    const auto db = Must(OverlayDb::Open(Env::Default(), path_, false));
    for (int i = 0; i < 300; ++i) {
      OverlayDb::Batch batch;
      FillBatch(random, batch, model);
      Must(db->Write(batch));
    }
  }
  EXPECT_EQ(Must(Env::Default().List(path_)), std::vector<std::string>{"log.00000001"});
  EXPECT_EQ(StateOf(*Open(Env::Default())), model);
}

TEST_F(OverlayDbTest, AKillLeavesEverythingThatWasAnswered) {
  SCOPED_TRACE(fmt::format("MIRAGE_TEST_SEED={}", seed_));
  std::mt19937 random(seed_);
  for (uint64_t stop = 1;; ++stop) {
    StartAnew();
    Ran ran;
    {
      const auto db = Open(env_);
      env_.StopAt(env_.operations() + stop);
      ran = Run(*db, random, 120);
    }
    const bool stopped = env_.stopped();
    env_.Restart(Loss::kNothing, 0);
    ASSERT_EQ(NotBetween(StateOf(*Open(env_)), ran.answered, ran.answered + 1), "") << "stopped at " << stop;
    if (!stopped) break;
  }
}

TEST_F(OverlayDbTest, APowerCutLeavesAPrefixWithAllThatWasSynced) {
  SCOPED_TRACE(fmt::format("MIRAGE_TEST_SEED={}", seed_));
  std::mt19937 random(seed_);
  const auto losses = {Loss::kUnsynced, Loss::kUnsyncedBytes, Loss::kSome, Loss::kSome};
  for (uint64_t stop = 1;; ++stop) {
    bool stopped = false;
    for (const Loss loss : losses) {
      StartAnew();
      Ran ran;
      {
        const auto db = Open(env_);
        env_.StopAt(env_.operations() + stop);
        ran = Run(*db, random, 120);
      }
      stopped = env_.stopped();
      env_.Restart(loss, random());
      State left;
      {
        const auto db = Open(env_);
        left = StateOf(*db);
        ASSERT_EQ(NotBetween(left, ran.synced, ran.answered + 1), "") << "stopped at " << stop;
        Run(*db, random, 20);  // it works, and what it writes now stays
        Must(db->Sync());
      }
      env_.Restart(loss, random());
      ASSERT_EQ(StateOf(*Open(env_)), states_.back()) << "stopped at " << stop;
    }
    if (!stopped) break;
  }
}

TEST_F(OverlayDbTest, AFaultIsSaidAndNothingOfItsBatchStays) {
  SCOPED_TRACE(fmt::format("MIRAGE_TEST_SEED={}", seed_));
  std::mt19937 random(seed_);
  for (uint64_t at = 1;; ++at) {
    StartAnew();
    size_t synced = 0;
    bool struck = false;
    State model;
    {
      const auto db = Open(env_);
      switch (random() % 3) {
        case 0: env_.FailAt(env_.operations() + at, EIO); break;
        case 1: env_.FailAt(env_.operations() + at, ENOSPC); break;
        case 2: env_.FillAt(env_.operations() + at); break;
      }
      states_ = {{}};
      for (int i = 0; i < 120; ++i) {
        OverlayDb::Batch batch;
        State next = model;
        FillBatch(random, batch, next);
        if (const auto written = db->Write(batch)) {
          model = next;
          states_.push_back(model);
        } else {
          ASSERT_TRUE(env_.failed()) << at << ": " << written.error().message;
          env_.Heal();
          if (db->Write(batch)) {  // the disk has room again
            model = next;
            states_.push_back(model);
          }
        }
        ASSERT_EQ(StateOf(*db), model) << at;
        if (random() % 8 != 0) continue;
        if (db->Sync()) synced = states_.size() - 1;  // also behind one that failed: what the log lost is in a table
      }
      struck = env_.failed();
      env_.Heal();
    }
    env_.Restart(Loss::kUnsynced, 0);
    ASSERT_EQ(NotBetween(StateOf(*Open(env_)), synced, states_.size() - 1), "") << at;
    if (!struck && at > 200) break;
  }
}

TEST_F(OverlayDbTest, DamageEndsTheLogAndIsNoRow) {
  std::mt19937 random(seed_);
  {
    const auto db = Must(OverlayDb::Open(Env::Default(), path_, false));
    Run(*db, random, 30);
  }
  const std::string log = path_ + "/log.00000001";
  const std::string whole = Must(ReadWholeFile(Env::Default(), log, 1 << 20));
  const auto write = [&](const std::string& bytes) {
    StartAnew();
    Must(Must(Env::Default().Open(log, OpenMode::kCreate))->WriteAt(0, bytes));
  };
  for (size_t at = 0; at < whole.size(); at += 1 + random() % 9) {
    for (const bool cut : {false, true}) {
      std::string damaged = whole;
      if (cut) {
        damaged.resize(at);
      } else {
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << (random() % 8)));
      }
      write(damaged);
      State left;
      {
        const auto db = Open(Env::Default());
        left = StateOf(*db);
        ASSERT_EQ(NotBetween(left, 0, states_.size() - 1), "") << at;
        OverlayDb::Batch batch;
        batch.PutNextInode(4711);
        Must(db->Write(batch));
      }
      left["next"] = "4711";
      ASSERT_EQ(StateOf(*Open(Env::Default())), left) << "what follows damage is found again, " << at;
    }
  }
}

TEST_F(OverlayDbTest, ADamagedTableIsAnError) {
  std::mt19937 random(seed_);
  {
    const auto db = Open(Env::Default());
    Run(*db, random, 60);
    while (Files("rows.") == 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  const auto names = Must(Env::Default().List(path_));
  const auto name = std::find_if(names.begin(), names.end(), [](const auto& file) { return file.starts_with("rows.1-"); });
  ASSERT_NE(name, names.end());
  const auto file = Must(Env::Default().Open(path_ + "/" + *name, OpenMode::kReadWrite));
  const std::string whole = Must(ReadWholeFile(Env::Default(), path_ + "/" + *name, 1 << 20));
  const auto error = [&] {
    const auto db = OverlayDb::Open(Env::Default(), path_, false, kSmall);
    if (!db) return db.error().code;
    if (const auto visited = (*db)->VisitInodes([](uint64_t, const InodeRecord&) { return true; }); !visited) {
      return visited.error().code;
    }
    for (uint64_t directory = 0; directory < kDirectories; ++directory) {
      const auto visited = (*db)->VisitDirents(directory, [](std::string_view, const Dirent&) { return true; });
      if (!visited) return visited.error().code;
    }
    return 0;
  };
  ASSERT_EQ(error(), 0);
  for (size_t at = 0; at < whole.size(); at += 1 + random() % 4) {
    Must(file->WriteAt(at, std::string(1, static_cast<char>(whole[at] ^ (1 << (random() % 8))))));
    ASSERT_EQ(error(), EIO) << at;
    Must(file->WriteAt(at, whole.substr(at, 1)));
  }
  Must(file->Truncate(whole.size() / 2));
  EXPECT_EQ(error(), EIO);
  Must(Env::Default().Unlink(path_ + "/" + *name));
  EXPECT_EQ(error(), Files("rows.") == 0 ? 0 : EIO) << "batches are missing";
}

// What was in the file before, or in a name, looks like a record only to who knows the segment's salt.
TEST_F(OverlayDbTest, ARecordOfAnotherSegmentIsNone) {
  std::mt19937 random(seed_);
  {
    const auto db = Must(OverlayDb::Open(Env::Default(), path_, false));
    Run(*db, random, 2);
  }
  const std::string log = path_ + "/log.00000001";
  const std::string other = Must(ReadWholeFile(Env::Default(), log, 1 << 20));
  StartAnew();
  {
    const auto db = Must(OverlayDb::Open(Env::Default(), path_, false));
    Run(*db, random, 1);
  }
  const auto file = Must(Env::Default().Open(log, OpenMode::kReadWrite));
  const uint64_t end = Must(file->Size());
  // The other's second record has the sequence that is next here.
  constexpr size_t kHeaderBytes = 40;
  const size_t first = RowLog::kRecordHeaderBytes + LoadAt<uint32_t>(other, kHeaderBytes + 16);
  Must(file->WriteAt(end, std::string_view(other).substr(kHeaderBytes + first)));
  EXPECT_EQ(StateOf(*Open(Env::Default())), states_[1]);
  EXPECT_EQ(Must(file->Size()), end) << "cut off";
}

TEST_F(OverlayDbTest, ASyncedBatchIsNotSyncedAgain) {
  std::mt19937 random(seed_);
  const auto db = Open(env_);
  Run(*db, random, 3);
  const uint64_t sequence = db->sequence();
  Must(db->Sync());
  const uint64_t operations = env_.operations();
  Must(db->SyncTo(sequence));
  EXPECT_EQ(env_.operations(), operations);
}

// After a kill what was answered is in the page cache, and no sync of this process has been asked for it.
TEST_F(OverlayDbTest, WhatWasReadFromTheLogIsSyncedWithTheNext) {
  std::mt19937 random(seed_);
  State state;
  {
    const auto db = Open(env_);
    OverlayDb::Batch batch;
    FillBatch(random, batch, state);
    Must(db->Write(batch));
  }
  // The log, unsynced: Restart would say that it is on the disk.
  const std::string log = path_ + "/log.00000001";
  const std::string bytes = Must(ReadWholeFile(env_, log, 1 << 20));
  Must(env_.Unlink(log));
  Must(env_.SyncDirectory(path_));
  Must(Must(env_.Open(log, OpenMode::kCreate))->WriteAt(0, bytes));
  {
    const auto db = Open(env_);
    Must(db->Sync());
  }
  env_.Restart(Loss::kUnsynced, 0);
  EXPECT_EQ(StateOf(*Open(env_)), state);
}

TEST_F(OverlayDbTest, WhatTheLogLostGoesToATable) {
  std::mt19937 random(seed_);
  State model;
  {
    const auto db = Must(OverlayDb::Open(env_, path_, false));
    for (int i = 0; i < 20; ++i) {
      OverlayDb::Batch batch;
      FillBatch(random, batch, model);
      Must(db->Write(batch));
    }
    EXPECT_EQ(Files("rows."), 0U);
    env_.FailAt(env_.operations() + 1, EIO);
    Must(db->Sync());
    EXPECT_TRUE(env_.failed());
    EXPECT_EQ(Files("rows."), 1U);
  }
  env_.Restart(Loss::kUnsynced, 0);
  EXPECT_EQ(StateOf(*Open(env_)), model);
}

TEST_F(OverlayDbTest, WhatMustGoBeforeASyncGoesBeforeTablesToo) {
  std::mt19937 random(seed_);
  const auto db = Open(env_);
  std::atomic<int> asked{0};
  db->BeforeSync([&]() -> Status {
    ++asked;
    return Fail(EIO, "not now");
  });
  State model;
  for (int i = 0; i < 40; ++i) {
    OverlayDb::Batch batch;
    FillBatch(random, batch, model);
    Must(db->Write(batch));
  }
  const auto synced = db->Sync();
  ASSERT_FALSE(synced);
  EXPECT_EQ(synced.error().message, "not now");
  while (asked < 2) std::this_thread::sleep_for(std::chrono::milliseconds(10));  // the tables' thread, too
  EXPECT_EQ(Files("rows."), 0U);
  db->BeforeSync({});
  EXPECT_FALSE(db->Sync()) << "what the tables' thread heard is told";
  Must(db->Sync());
  EXPECT_EQ(StateOf(*db), model);
}

TEST_F(OverlayDbTest, ACopyIsAsItWasAtSomeMoment) {
  SCOPED_TRACE(fmt::format("MIRAGE_TEST_SEED={}", seed_));
  std::mt19937 random(seed_);
  const auto db = Open(Env::Default());
  std::atomic<bool> done{false};
  std::thread writer([&] {
    Run(*db, random, 2000);
    done = true;
  });
  std::vector<State> copies;
  const auto copy = [&] {
    const std::string path = directory_ / fmt::format("copy{}", copies.size());
    Must(db->CopyTo(path));
    copies.push_back(StateOf(*Must(OverlayDb::Open(Env::Default(), path, false, kSmall))));
  };
  while (!done) copy();
  writer.join();
  copy();
  for (const State& state : copies) EXPECT_EQ(NotBetween(state, 0, states_.size() - 1), "");
  EXPECT_EQ(copies.back(), states_.back());
}

TEST_F(OverlayDbTest, BadPathsAreErrors) {
  EXPECT_EQ(OverlayDb::Open(Env::Default(), path_, true).error().code, EEXIST);
  EXPECT_EQ(OverlayDb::Open(Env::Default(), path_ + "-none", false).error().code, ENOENT);
}

}  // namespace
}  // namespace mirage::testing
