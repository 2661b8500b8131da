// A MANIFEST of RocksDB whose last record a power cut has torn is cut back to the record before, and nothing else is.
#include "store/rocksdb_tail.h"

#include "store/encoding.h"
#include "store/metadata_db.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::Must;
using testing::TemporaryDirectory;

class RocksDbTailTest : public ::testing::Test {
 protected:
  std::string db() const { return directory_.path() + "/db"; }
  std::string ManifestPath() const {
    std::string name = Must(ReadWholeFile(env_, db() + "/CURRENT", 100));
    name.pop_back();
    return db() + "/" + name;
  }
  std::string Manifest() const { return Must(ReadWholeFile(env_, ManifestPath(), 1 << 20)); }
  void SetManifest(const std::string& bytes) { Must(WriteFileAtomically(env_, ManifestPath(), bytes)); }
  uint64_t Sequence() { return Must(Must(MetadataDb::OpenReadOnly(env_, db()))->Position()).sequence; }

  Env& env_ = Env::Default();
  TemporaryDirectory directory_;
};

TEST_F(RocksDbTailTest, ATornRecordIsCutOff) {
  Must(MetadataDb::Create(env_, db()));
  std::string before, after;
  {
    const auto writer = Must(MetadataWriter::Open(env_, db()));
    Must(writer->CatchUp({}, {{"debian", 1}}, {.sequence = 1, .offset = 100, .chain = {}}));
    before = Manifest();
    Must(writer->CatchUp({}, {{"debian", 2}}, {.sequence = 2, .offset = 200, .chain = {}}));
    after = Manifest();
  }
  ASSERT_TRUE(after.starts_with(before));
  ASSERT_GT(after.size(), before.size() + 20);
  EXPECT_EQ(Sequence(), 2U);
  EXPECT_FALSE(Must(CutTornTail(env_, db()))) << "nothing is torn";
  EXPECT_EQ(Manifest(), after);
  size_t refused = 0, back = 0;
  for (size_t written = before.size(); written < after.size(); ++written) {
    SCOPED_TRACE(written - before.size());
    const std::string torn = after.substr(0, written) + std::string(after.size() - written, '\0');
    if (torn == after) continue;
    SetManifest(torn);
    if (MetadataDb::OpenReadOnly(env_, db())) continue;  // RocksDB passes over a header of zeros
    ++refused;
    EXPECT_TRUE(Must(CutTornTail(env_, db())));
    // To the end of a record: there may be two of them.
    EXPECT_TRUE(after.starts_with(Manifest()));
    EXPECT_GE(Manifest().size(), before.size());
    EXPECT_EQ(Sequence(), Manifest() == before ? 1U : 2U);
    back += Manifest() == before;
  }
  EXPECT_GT(refused, 10U);
  EXPECT_GT(back, 0U);
}

TEST_F(RocksDbTailTest, DamageStays) {
  Must(MetadataDb::Create(env_, db()));
  {
    const auto writer = Must(MetadataWriter::Open(env_, db()));
    Must(writer->CatchUp({}, {}, {.sequence = 1, .offset = 100, .chain = {}}));
  }
  std::string bytes = Manifest();
  ASSERT_NE(bytes.back(), '\0');
  bytes.back() ^= 1;
  SetManifest(bytes);
  ASSERT_FALSE(MetadataDb::OpenReadOnly(env_, db()));
  EXPECT_FALSE(Must(CutTornTail(env_, db())));
  EXPECT_EQ(Manifest(), bytes);
}

// Records of several fragments, over blocks and their ends.
TEST_F(RocksDbTailTest, ARecordOfManyBlocks) {
  constexpr size_t kBlock = 32 << 10, kHeader = 7;
  Must(env_.MakeDirectory(db(), 0700));
  Must(WriteFileAtomically(env_, db() + "/CURRENT", "MANIFEST-000001\n"));
  std::string log;
  const auto add = [&](size_t bytes) {
    for (bool first = true, more = true; more; first = false) {
      size_t left = kBlock - log.size() % kBlock;
      if (left < kHeader) {
        log.append(left, '\0');
        left = kBlock;
      }
      const size_t here = std::min(bytes, left - kHeader);
      bytes -= here;
      more = bytes > 0;
      log += "csum";
      Put<uint16_t>(&log, static_cast<uint16_t>(here));
      log += static_cast<char>(first ? (more ? 2 : 1) : (more ? 3 : 4));
      log.append(here, 'x');
    }
  };
  add(100);
  add(kBlock - 100 - 2 * kHeader - 3);  // three bytes of the block are left
  const size_t whole = log.size();
  add(3 * kBlock);
  for (const size_t written : {whole + 1, whole + 5, whole + 50, whole + kBlock, whole + 2 * kBlock + 2, log.size() - 1}) {
    SCOPED_TRACE(written);
    SetManifest(log.substr(0, written) + std::string(log.size() - written, '\0'));
    EXPECT_TRUE(Must(CutTornTail(env_, db())));
    const std::string cut = Manifest();
    EXPECT_GE(cut.size(), whole);
    EXPECT_LE(cut.size(), whole + 3);  // with or without the end of the block
    EXPECT_EQ(cut, log.substr(0, cut.size()));
  }
}

}  // namespace
}  // namespace mirage
