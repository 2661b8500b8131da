// The library's RocksDB: what its writers leave on the disk.
#include "store/metadata_db.h"

#include "tests/testing/fault_env.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::FaultEnv;
using testing::Must;
using testing::TemporaryDirectory;

size_t TablesOnDisk(const std::string& db) {
  size_t tables = 0;
  for (const std::string& name : Must(Env::Default().List(db))) tables += name.ends_with(".sst");
  return tables;
}

std::vector<std::string> Stage(Env& env, const std::string& prefix, int rows) {
  RowFiles files(env, prefix);
  std::vector<ObjectId> ids;
  for (int i = 0; i < rows; ++i) ids.push_back(HashBytes(prefix + std::to_string(i)));
  std::sort(ids.begin(), ids.end());
  for (const ObjectId& id : ids) Must(files.Put(ObjectKind::kTree, id, "bytes"));
  return Must(files.Finish());
}

TEST(MetadataDbTest, WritersLeaveTheTablesThatAreLive) {
  const TemporaryDirectory directory;
  const std::string db = directory.path() + "/db";
  Env& env = Env::Default();
  Must(MetadataDb::Create(env, db));
  uint64_t most = 0;
  for (int round = 0; round < 12; ++round) {
    {
      const auto writer = Must(MetadataWriter::Open(env, db));
      Must(writer->Ingest(Stage(env, directory.path() + "/rows" + std::to_string(round), 100)));
      Must(writer->CatchUp({}, {}, {.sequence = 1, .offset = 100, .chain = {}}));
      if (round % 3 == 2) {
        while (Must(writer->CompactPiece())) continue;
      }
      if (round == 11) Must(writer->CompactAll());
    }
    const uint64_t live = Must(MetadataDb::OpenReadOnly(env, db))->shape().files;
    most = std::max(most, live);
    EXPECT_EQ(TablesOnDisk(db), live) << "round " << round;
  }
  EXPECT_GT(most, 6U);
  EXPECT_LT(TablesOnDisk(db), 4U);
}

// An ingest whose record could not be synced, or not be written, or not be read back as written: the database opens, with
// the rows or without, and the next writer works and leaves nothing.
TEST(MetadataDbTest, AnIngestThatFailsLeavesADatabaseThatOpens) {
  size_t failed = 0;
  for (const int code : {ENOSPC, EIO}) {
    for (uint64_t number = 1;; ++number) {
      SCOPED_TRACE(fmt::format("operation {}, error {}", number, code));
      const TemporaryDirectory directory;
      const std::string db = directory.path() + "/db";
      FaultEnv env(directory.path());
      Must(MetadataDb::Create(env, db));
      const auto rows = Stage(env, directory.path() + "/rows", 100);
      bool struck = false;
      {
        const auto writer = Must(MetadataWriter::Open(env, db));
        env.FailAt(env.operations() + number, code);
        failed += !writer->Ingest(rows);
        struck = env.failed();
        env.Heal();
      }
      if (!struck) break;
      Must(MetadataDb::OpenReadOnly(env, db));
      {
        const auto writer = Must(MetadataWriter::Open(env, db));
        Must(writer->Ingest(Stage(env, directory.path() + "/more", 10)));
      }
      EXPECT_EQ(TablesOnDisk(db), Must(MetadataDb::OpenReadOnly(env, db))->shape().files);
    }
  }
  EXPECT_GT(failed, 4U);
}

}  // namespace
}  // namespace mirage
