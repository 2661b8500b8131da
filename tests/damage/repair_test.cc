// fsck --repair: RocksDB made anew from packs and refs.log alone; what checks of a damaged pack is kept and the rest
// put aside; and an import of the same files heals what is lost.
#include "store/reachable.h"
#include "tests/damage/damaged_library.h"
#include "tests/testing/fault_env.h"

namespace mirage {
namespace {

namespace fs = std::filesystem;
using testing::Checking;
using testing::DamagedLibraryTest;
using testing::FaultEnv;
using testing::Must;
using testing::Reading;
using testing::StageTree;

class Repair : public DamagedLibraryTest {
 protected:
  Repair() {
    Fill();
    before_ = Read(path());
  }
  void ExpectAsBefore() {
    const Reading now = Read(path());
    EXPECT_EQ(now.open_error, "");
    EXPECT_EQ(now.refs, before_.refs);
    EXPECT_TRUE(now.files == before_.files);
    EXPECT_TRUE(now.failed.empty());
    EXPECT_EQ(Check(path()).exit, 0) << Check(path()).Text();
  }
  void ExpectRepaired() {
    const Checking damaged = Check(path());
    EXPECT_EQ(damaged.exit, 4) << damaged.Text();
    const Checking repaired = Check(path(), true);
    EXPECT_EQ(repaired.exit, 1) << repaired.Text();
    EXPECT_EQ(repaired.Count(FsckFinding::kLeft), 0U) << repaired.Text();
    EXPECT_GT(repaired.Count(FsckFinding::kRepair), 0U);
    ExpectAsBefore();
  }
  Reading before_;
};

TEST_F(Repair, ASoundLibraryIsLeftAlone) {
  const auto listing = [&] {
    std::map<std::string, fs::file_time_type> times;
    for (const auto& item : fs::recursive_directory_iterator(path())) {
      if (item.is_regular_file() && item.path().string().find("/locks/") == std::string::npos) {
        times[item.path()] = item.last_write_time();
      }
    }
    return times;
  };
  const auto files = listing();
  EXPECT_EQ(Check(path(), true).exit, 0);
  EXPECT_EQ(listing(), files);
  EXPECT_EQ(Check(path()).exit, 0);
  EXPECT_EQ(listing(), files);
}

TEST_F(Repair, TheDatabaseDeleted) {
  fs::remove_all(path() + "/db");
  EXPECT_NE(Read(path()).open_error, "");
  ExpectRepaired();
}

TEST_F(Repair, TheDatabaseSpoiled) {
  for (const auto& item : fs::directory_iterator(path() + "/db")) {
    if (item.is_regular_file() && item.file_size() > 0) SetBytes("db/" + item.path().filename().string(), "spoiled");
  }
  EXPECT_NE(Read(path()).open_error, "");
  ExpectRepaired();
}

TEST_F(Repair, TheDatabaseRolledBack) {
  fs::copy(path() + "/db", path() + "-old-db", fs::copy_options::recursive);
  library_ = Must(Library::Open(path(), {}));
  second_["later"] = testing::RandomBytes(120'000, 9);
  Must(Publish(library_, "debian", second_));
  for (int i = 0; i < 70; ++i) {  // more than a publish lets RocksDB's refs lag
    Must(library_->MoveRefs(
        "tag", {{fmt::format("debian/t{}", i), ObjectId(), Must(library_->snapshot()->Branch("debian"))->manifest}}));
  }
  second_["last"] = testing::RandomBytes(10'000, 10);
  Must(Publish(library_, "debian", second_));
  library_.reset();
  before_ = Read(path());
  fs::remove_all(path() + "/db");
  fs::rename(path() + "-old-db", path() + "/db");
  const Reading rolled_back = Read(path());
  EXPECT_EQ(rolled_back.open_error, "");
  EXPECT_EQ(rolled_back.refs, before_.refs);
  for (const auto& [key, error] : rolled_back.failed) EXPECT_EQ(error.code, EIO) << key << ": " << error.message;
  EXPECT_TRUE(rolled_back.failed.contains("debian/v4:")) << "a version that the old database does not know";
  ExpectRepaired();
}

TEST_F(Repair, CountersAndHistoryComeBack) {
  {
    const auto library = Must(Library::Open(path(), {}));
    const auto v2 = Must(library->snapshot()->Tag("debian", "v2"))->manifest;
    const auto v1 = Must(library->snapshot()->Tag("debian", "v1"))->manifest;
    Must(
        library->MoveRefs("tag", {{"debian/v2", v2, ObjectId()}, {"debian", v2, v1}, {"debian/kept", ObjectId(), v2}}));
  }
  fs::remove_all(path() + "/db");
  EXPECT_EQ(Check(path(), true).exit, 1);
  const auto library = Must(Library::Open(path(), {}));
  EXPECT_EQ(Must(library->snapshot()->HighestVersion("debian")), 2U);
  EXPECT_EQ(Must(library->snapshot()->LatestTag("debian")), "v1");
  EXPECT_EQ(Must(ResolveVersion(*library->snapshot(), "debian/kept~1")).id,
            Must(library->snapshot()->Tag("debian", "v1"))->manifest);
  EXPECT_EQ(Must(Publish(library, "debian", first_)).tag, "v3");
}

// A crash of a repair between its two renames: the old db/ is put aside and the new one not yet there.
TEST_F(Repair, ARepairThatWasCutShortIsFinishedByAnother) {
  const std::string pack = PackOf("debian", "noise");
  std::string bytes = Bytes(pack);
  bytes[bytes.size() - 100] ^= 1;
  SetBytes(pack, bytes);
  fs::create_directories(path() + "/quarantine");
  fs::rename(path() + "/db", path() + "/quarantine/db");
  fs::create_directories(path() + "/staging/0123456789abcdef/db");
  const Checking repaired = Check(path(), true);
  EXPECT_EQ(repaired.exit, 4) << repaired.Text();  // a block is lost
  EXPECT_EQ(Read(path()).refs, before_.refs);
  EXPECT_TRUE(fs::exists(path() + "/quarantine/" + pack.substr(6)));
  EXPECT_TRUE(fs::exists(path() + "/quarantine/db"));
}

class StoppedRepair : public Repair {
 protected:
  // Repairs copies of a library without db/ and with a bad block, each stopped at another of the disk's operations and what was
  // not synced lost, and then once more. `most`: how many stops, spread over all.
  void StopAtEach(uint64_t most) {
    const std::string pack = PackOf("debian", "noise");
    std::string bytes = Bytes(pack);
    bytes[200] ^= 1;
    SetBytes(pack, bytes);
    SetBytes("packs/stranger", "x");
    fs::remove_all(path() + "/db");
    const std::string copy = path() + "-copy";
    const auto fresh = [&] {
      fs::remove_all(copy);
      fs::copy(path(), copy, fs::copy_options::recursive);
    };
    const auto repair = [&](Env& env) {
      FsckOptions options;
      options.env = &env;
      options.repair = true;
      return Fsck(copy, options, {}, {});
    };
    fresh();
    uint64_t operations = 0;
    {
      FaultEnv whole(copy);
      EXPECT_GT(Must(repair(whole)).damaged, 0U);
      operations = whole.operations();
    }
    const Reading wanted = Read(copy);
    ASSERT_EQ(wanted.open_error, "");
    ASSERT_FALSE(wanted.failed.empty());
    ASSERT_GT(operations, 50U);
    for (uint64_t stops = std::min(most, operations), i = 0; i < stops; ++i) {
      const uint64_t at = 1 + i * operations / stops;
      SCOPED_TRACE(fmt::format("stopped at operation {} of {}", at, operations));
      fresh();
      FaultEnv stopping(copy);
      stopping.StopAt(at);
      static_cast<void>(repair(stopping));
      ASSERT_TRUE(stopping.stopped());
      stopping.Restart(i % 2 == 0 ? FaultEnv::Loss::kUnsynced : FaultEnv::Loss::kUnsyncedBytes, at);
      Must(repair(Env::Default()));
      const Reading now = Read(copy);
      EXPECT_EQ(now.open_error, "");
      EXPECT_EQ(now.refs, wanted.refs);
      EXPECT_TRUE(now.files == wanted.files);
      EXPECT_EQ(now.failed.size(), wanted.failed.size());
      const Checking checking = Check(copy);
      EXPECT_EQ(checking.exit, 4);
      for (const FsckFinding& finding : checking.findings) {
        EXPECT_NE(finding.path, "") << "more is left than the lost block's files: " << finding.what;
      }
    }
  }
};

TEST_F(StoppedRepair, AtSomeOperations) { StopAtEach(24); }
TEST_F(StoppedRepair, AtEachOperation) { StopAtEach(~uint64_t{0}); }

TEST_F(Repair, AnObjectThatTheDatabaseAloneHasIsWrittenToAPackAgain) {
  // The packs of objects are those that hold no file's bytes.
  size_t removed = 0;
  for (const std::string& pack : Packs()) {
    if (pack == PackOf("debian", "noise") || pack == PackOf("debian", "new") || pack == PackOf("suse", "only"))
      continue;
    fs::remove(path() + "/" + pack);
    ++removed;
  }
  ASSERT_EQ(removed, 3U);
  ExpectRepaired();
  fs::remove_all(path() + "/db");
  ExpectRepaired();
}

TEST_F(Repair, ABlockIsLostTheRestIsKeptAndAnImportHeals) {
  const std::string pack = PackOf("debian", "noise");
  std::string bytes = Bytes(pack);
  bytes[200] ^= 0x40;  // in the first block: noise and what lies beside it
  SetBytes(pack, bytes);

  const Checking found = Check(path());
  EXPECT_EQ(found.exit, 4);
  const Reading damaged = Read(path());
  ASSERT_FALSE(damaged.failed.empty());
  for (const auto& [key, error] : damaged.failed) {
    EXPECT_EQ(error.code, EIO) << key << ": " << error.message;
    const size_t colon = key.find(':');
    if (key.find('/') < colon) {
      EXPECT_TRUE(found.Names(key.substr(0, colon), key.substr(colon + 1))) << key << "\n" << found.Text();
    }
  }
  for (const auto& [key, content] : damaged.files) EXPECT_EQ(content, before_.files[key]) << key;

  const Checking repaired = Check(path(), true);
  EXPECT_EQ(repaired.exit, 4) << repaired.Text();
  EXPECT_TRUE(fs::exists(path() + "/quarantine/" + pack.substr(6)));
  EXPECT_FALSE(fs::exists(path() + "/" + pack));
  const Reading kept = Read(path());
  EXPECT_EQ(kept.refs, before_.refs);
  for (const auto& [key, content] : damaged.files) {
    EXPECT_TRUE(kept.files.contains(key)) << key;
    if (kept.files.contains(key)) {
      EXPECT_EQ(kept.files.at(key), content);
    }
  }
  // What is left is what no file of the library has any more.
  for (const FsckFinding& finding : repaired.findings) {
    if (finding.kind == FsckFinding::kLeft) {
      EXPECT_NE(finding.path, "") << finding.what;
    }
  }
  library_ = Must(Library::Open(path(), {}));
  Must(Publish(library_, "healer", second_));
  Must(Publish(library_, "healer", first_));
  library_.reset();
  EXPECT_EQ(Check(path()).exit, 0) << Check(path()).Text();
  const Reading healed = Read(path());
  for (const auto& [key, content] : before_.files) {
    ASSERT_TRUE(healed.files.contains(key)) << key;
    EXPECT_EQ(healed.files.at(key), content);
  }
}

TEST_F(Repair, APackIsDeletedAndAnImportHeals) {
  for (const std::string& pack : Packs()) {
    const std::string bytes = Bytes(pack);
    fs::remove(path() + "/" + pack);
    const Checking found = Check(path());
    EXPECT_EQ(found.exit, 4) << pack;
    const Reading damaged = Read(path());
    EXPECT_EQ(damaged.refs, before_.refs);
    for (const auto& [key, error] : damaged.failed) EXPECT_EQ(error.code, EIO) << key << ": " << error.message;
    for (const auto& [key, content] : damaged.files) EXPECT_EQ(content, before_.files[key]) << key;
    SetBytes(pack, bytes);
  }
  fs::remove(path() + "/" + PackOf("debian", "noise"));
  EXPECT_EQ(Check(path(), true).exit, 4);
  library_ = Must(Library::Open(path(), {}));
  Must(Publish(library_, "healer", first_));
  library_.reset();
  EXPECT_EQ(Check(path()).exit, 0) << Check(path()).Text();
  EXPECT_TRUE(Read(path()).failed.empty());
}

// Who began before a repair takes for there what it found lost.
TEST_F(Repair, WhoHadBegunBeginsAgain) {
  library_ = Must(Library::Open(path(), {}));
  const uint64_t generation = library_->snapshot()->generation();
  const auto transaction = Must(library_->Begin("import"));
  fs::remove(path() + "/" + PackOf("debian", "noise"));
  EXPECT_EQ(Check(path(), true).exit, 4);
  NewVersion version;
  version.manifest.root = Must(StageTree(*transaction, first_));
  version.manifest.branch = "late";
  EXPECT_FALSE(transaction->contents().statistics().new_chunks) << "it did not take them for there";
  const auto published = transaction->Publish(version);
  ASSERT_FALSE(published);
  EXPECT_EQ(published.error().code, EBUSY) << published.error().message;
  EXPECT_NE(published.error().message.find("repaired"), std::string::npos) << published.error().message;

  // Everybody else sees that there are other rows, and may go on.
  EXPECT_TRUE(Must(library_->Refresh()));
  EXPECT_GT(library_->snapshot()->generation(), generation);
  EXPECT_EQ(library_->snapshot()->made_in(), library_->snapshot()->generation());
  Must(Publish(library_, "late", first_));
  library_.reset();
  EXPECT_EQ(Check(path()).exit, 0) << Check(path()).Text();
}

TEST_F(Repair, WhatComesBackNeedsNoVersion) {
  fs::remove(path() + "/" + PackOf("debian", "noise"));
  EXPECT_EQ(Check(path(), true).exit, 4);
  library_ = Must(Library::Open(path(), {}));
  const auto reader = Must(Library::Open(path(), {}));
  const auto head = Must(library_->snapshot()->Branch("debian"))->manifest;
  EXPECT_FALSE(Must(IsWhole(*library_, *library_->snapshot(), head, directory_.path())));
  {
    const auto transaction = Must(library_->Begin("import"));
    EXPECT_FALSE(transaction->HasStaged());
    Must(StageTree(*transaction, second_));
    EXPECT_TRUE(transaction->HasStaged());
    Must(transaction->Restore());
  }
  EXPECT_TRUE(Must(IsWhole(*library_, *library_->snapshot(), head, directory_.path())));
  EXPECT_TRUE(Must(reader->Refresh()));
  EXPECT_TRUE(Must(IsWhole(*reader, *reader->snapshot(), head, directory_.path())));
  {
    const auto transaction = Must(library_->Begin("import"));
    Must(StageTree(*transaction, second_));
    EXPECT_FALSE(transaction->HasStaged());
    Must(StageTree(*transaction, first_));
    Must(transaction->Restore());
  }
  library_.reset();
  ExpectAsBefore();
}

TEST_F(Repair, ARefWhoseManifestIsLostIsReportedAndLeft) {
  for (const std::string& pack : Packs()) {
    if (pack != PackOf("debian", "noise") && pack != PackOf("debian", "new") && pack != PackOf("suse", "only")) {
      fs::rename(path() + "/" + pack, path() + "/" + pack + ".lost");
    }
  }
  fs::remove_all(path() + "/db");
  const Checking repaired = Check(path(), true);
  EXPECT_EQ(repaired.exit, 4);
  EXPECT_TRUE(repaired.Names("debian/v1", "", FsckFinding::kLeft)) << repaired.Text();
  const Reading now = Read(path());
  EXPECT_EQ(now.open_error, "");
  EXPECT_EQ(now.refs, before_.refs);
  EXPECT_EQ(now.failed.size(), now.refs.size());
  for (const auto& [key, error] : now.failed) EXPECT_EQ(error.code, EIO) << key << ": " << error.message;
}

TEST_F(Repair, AByteOfTheLogIsPutRightWhereTheChecksumProvesIt) {
  const std::string log = Bytes("refs.log");
  const size_t second = log.find("\n2\t") + 1, third = log.find("\n3\t") + 1;
  // A digit of the time, the tab, a move's id, the checksum, the newline; and of the last record.
  for (const size_t at :
       {second + 3, log.find('\t', second), second + 120, third - 10, third - 1, third + 8, log.size() - 5}) {
    std::string damaged = log;
    damaged[at] ^= 4;
    SetBytes("refs.log", damaged);
    const Checking found = Check(path());
    EXPECT_EQ(found.exit, 4) << at << found.Text();
    EXPECT_EQ(Bytes("refs.log"), damaged);
    const Checking repaired = Check(path(), true);
    EXPECT_EQ(repaired.exit, 1) << at << repaired.Text();
    EXPECT_EQ(Bytes("refs.log"), log) << at;
  }
  ExpectAsBefore();
}

// The power went before the last byte of a record was on the disk.
TEST_F(Repair, ALastRecordWithoutItsNewlineWasNeverCommitted) {
  const std::string log = Bytes("refs.log");
  for (const std::string& torn : {log.substr(0, log.size() - 1), log.substr(0, log.size() - 1) + '\0'}) {
    SetBytes("refs.log", torn);
    const Checking checked = Check(path());
    EXPECT_EQ(checked.exit, 0) << checked.Text();
    EXPECT_EQ(checked.Count(FsckFinding::kNote), 1U) << "of the version that hangs: " << checked.Text();
    EXPECT_EQ(Check(path(), true).exit, 0);
    EXPECT_EQ(Bytes("refs.log"), torn);
    const Reading now = Read(path());
    EXPECT_FALSE(now.refs.contains("suse"));
    EXPECT_EQ(now.refs.at("debian"), before_.refs.at("debian"));
  }
}

TEST_F(Repair, ARecordThatIsLostIsNeverARollback) {
  std::string log = Bytes("refs.log");
  const size_t second = log.find("\n2\t") + 1;
  log.replace(second + 20, 30, 30, '#');
  SetBytes("refs.log", log);
  EXPECT_NE(Read(path()).open_error, "");
  for (const bool repair : {false, true}) {
    const Checking found = Check(path(), repair);
    EXPECT_EQ(found.exit, 4) << found.Text();
    EXPECT_EQ(Bytes("refs.log"), log);
    EXPECT_NE(Read(path()).open_error, "");
  }
}

TEST_F(Repair, AByteOfFormatIsPutRight) {
  const std::string format = Bytes("FORMAT");
  for (const size_t at : {size_t{3}, format.find("uuid") + 9, format.size() - 20}) {
    std::string damaged = format;
    damaged[at] ^= 2;
    SetBytes("FORMAT", damaged);
    EXPECT_EQ(Check(path()).exit, 4);
    EXPECT_EQ(Check(path(), true).exit, 1);
    EXPECT_EQ(Bytes("FORMAT"), format);
  }
  ExpectAsBefore();
}

TEST_F(Repair, MissingDirectoriesAreMade) {
  for (const char* name : {"staging", "overlays", "locks"}) {
    fs::remove_all(path() + "/" + name);
    EXPECT_EQ(Check(path()).exit, 4) << name;
    EXPECT_EQ(Check(path(), true).exit, 1) << name;
  }
  ExpectAsBefore();
}

TEST_F(Repair, WhatIsNoLibraryIsNotChecked) {
  EXPECT_EQ(Check(path() + "/packs").exit, 8);
  EXPECT_EQ(Check(path() + "-nowhere", true).exit, 8);
  fs::remove(path() + "/FORMAT");
  EXPECT_EQ(Check(path(), true).exit, 4);
}

}  // namespace
}  // namespace mirage
