// Packs: what goes in comes out, and nothing that was damaged does.
#include "store/pack.h"

#include "tests/testing/memory_store.h"

namespace mirage {
namespace {

using testing::Must;
using testing::RandomBytes;
using testing::TemporaryDirectory;

constexpr PackNumber kNumber = 0xfeedface01020304;
constexpr std::string_view kUuid = "ABCDEFGHIJKLMNOP";

RawBlock MakeBlock(const std::vector<std::string>& objects) {
  RawBlock block;
  for (const std::string& bytes : objects) {
    block.rows.push_back({ObjectKind::kChunk, static_cast<uint32_t>(bytes.size()), HashBytes(bytes)});
    block.bytes += bytes;
  }
  return block;
}

class PackTest : public ::testing::Test {
 protected:
  std::string path() const { return directory_ / PackFileName(kNumber); }

  // A pack of these blocks, and its bytes.
  std::string WritePack(const std::vector<std::vector<std::string>>& blocks) {
    const auto writer = Must(PackWriter::Create(env_, path(), kNumber, kUuid));
    for (const auto& objects : blocks) {
      locations_.push_back(Must(writer->Append(Must(CompressBlock(MakeBlock(objects), 3)))));
    }
    Must(writer->Finish());
    std::string bytes = Must(ReadWholeFile(env_, path(), 1 << 30));
    EXPECT_EQ(bytes.size(), writer->size_bytes());
    return bytes;
  }
  Status Scan(const std::string& bytes) {
    ASSIGN_OR_RETURN(const auto file, env_.Open(path(), OpenMode::kReadWrite));
    TRY(file->Truncate(bytes.size()));
    TRY(file->WriteAt(0, bytes));
    return Scan();
  }
  Status Scan() {
    return ScanPack(env_, path(), kNumber, kUuid, [](const Location&, const Block&) -> Status { return {}; });
  }

  Env& env_ = Env::Default();
  TemporaryDirectory directory_;
  std::vector<Location> locations_;
};

TEST_F(PackTest, RoundTrip) {
  const std::vector<std::vector<std::string>> blocks = {
      {"one"}, {"two", "three", RandomBytes(100'000, 1)}, {std::string(kMaxBlockRawBytes, 'z')}};
  const std::string bytes = WritePack(blocks);
  size_t seen = 0;
  Must(ScanPack(env_, path(), kNumber, kUuid, [&](const Location& location, const Block& block) -> Status {
    EXPECT_EQ(location, locations_[seen]);
    EXPECT_EQ(block.rows().size(), blocks[seen].size());
    for (size_t i = 0; i < block.rows().size(); ++i) {
      EXPECT_EQ(block.Bytes(i), blocks[seen][i]);
      EXPECT_EQ(block.rows()[i].id, HashBytes(blocks[seen][i]));
    }
    const auto decoded = Block::Decode(bytes.substr(location.offset, location.record_bytes), kNumber, location.offset);
    EXPECT_TRUE(decoded);
    ++seen;
    return {};
  }));
  EXPECT_EQ(seen, blocks.size());
}

TEST_F(PackTest, AnEmptyPackIsWhole) {
  EXPECT_EQ(WritePack({}).size(), 80U);
  Must(Scan());
}

TEST_F(PackTest, AnErrorOfTheVisitorIsPassedOn) {
  WritePack({{"one"}});
  const Status status = ScanPack(env_, path(), kNumber, kUuid,
                                 [](const Location&, const Block&) -> Status { return Fail(EINTR, "enough"); });
  EXPECT_EQ(status.error().code, EINTR);
}

TEST_F(PackTest, EverySingleBitFlipIsFound) {
  const std::string bytes = WritePack({{"one", "two"}, {"three"}});
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const int bit : {0, 3, 7}) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      const Status status = Scan(damaged);
      ASSERT_FALSE(status) << "byte " << at << " bit " << bit;
      EXPECT_EQ(status.error().code, EIO);
    }
  }
}

// A walk that goes on: every block but the damaged one, and a word on each damage.
TEST_F(PackTest, AWalkThroughDamageSeesWhatChecks) {
  const std::string bytes = WritePack({{"one", "two"}, {RandomBytes(5000, 1)}, {"three"}, {"four"}});
  const auto walk = [&](const std::string& damaged, size_t* told) {
    const auto file = Must(env_.Open(path(), OpenMode::kReadWrite));
    Must(file->Truncate(damaged.size()));
    Must(file->WriteAt(0, damaged));
    std::vector<uint32_t> offsets;
    *told = 0;
    Must(WalkPack(
        *file, path(), kNumber, kUuid,
        [&](const Location& location, const Block&, std::string_view record) -> Status {
          EXPECT_EQ(record, std::string_view(bytes).substr(location.offset, location.record_bytes));
          offsets.push_back(location.offset);
          return {};
        },
        [&](const std::string&) { ++*told; }));
    return offsets;
  };
  std::vector<uint32_t> all;
  for (const Location& location : locations_) all.push_back(location.offset);
  size_t told = 0;
  EXPECT_EQ(walk(bytes, &told), all);
  EXPECT_EQ(told, 0U);
  for (size_t at = 0; at < bytes.size(); at += 7) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    std::vector<uint32_t> wanted;
    for (const Location& location : locations_) {
      if (at < location.offset || at >= location.offset + location.record_bytes) wanted.push_back(location.offset);
    }
    EXPECT_EQ(walk(damaged, &told), wanted) << "byte " << at;
    EXPECT_EQ(told, 1U) << "byte " << at;
  }
}

TEST_F(PackTest, EveryTruncationIsFound) {
  const std::string bytes = WritePack({{"one", "two"}, {"three"}});
  for (size_t size = 0; size < bytes.size(); ++size) {
    const Status status = Scan(bytes.substr(0, size));
    ASSERT_FALSE(status) << size;
    EXPECT_EQ(status.error().code, EIO);
  }
  EXPECT_FALSE(Scan(bytes + std::string(1, '\0')));
  EXPECT_FALSE(Scan(bytes + bytes));
  Must(Scan(bytes));
}

TEST_F(PackTest, ABlockCountsOnlyWhereItWasWritten) {
  const std::string bytes = WritePack({{"one"}, {"two"}});
  EXPECT_FALSE(ScanPack(env_, path(), kNumber + 1, kUuid, {}));
  EXPECT_FALSE(ScanPack(env_, path(), kNumber, "another library.", {}));
  const auto& at = locations_[1];
  const std::string record = bytes.substr(at.offset, at.record_bytes);
  EXPECT_TRUE(Block::Decode(record, kNumber, at.offset));
  EXPECT_FALSE(Block::Decode(record, kNumber + 1, at.offset));
  EXPECT_FALSE(Block::Decode(record, kNumber, at.offset + 1));
  EXPECT_FALSE(Block::Decode(record + "x", kNumber, at.offset));
  EXPECT_FALSE(Block::Decode("", kNumber, at.offset));
}

TEST_F(PackTest, LimitsOfABlock) {
  EXPECT_EQ(CompressBlock({}, 3).error().code, E2BIG);
  EXPECT_EQ(CompressBlock(MakeBlock({std::string(kMaxBlockRawBytes + 1, 'x')}), 3).error().code, E2BIG);
  EXPECT_EQ(CompressBlock(MakeBlock(std::vector<std::string>(kMaxBlockRows + 1, "x")), 3).error().code, E2BIG);
  WritePack({std::vector<std::string>(kMaxBlockRows, "x")});
  Must(Scan());
}

TEST_F(PackTest, CreateKeepsWhatIsThere) {
  WritePack({});
  EXPECT_EQ(PackWriter::Create(env_, path(), kNumber, kUuid).error().code, EEXIST);
}

TEST(PackName, RoundTrip) {
  EXPECT_EQ(PackFileName(0xab), "00000000000000ab.pack");
  EXPECT_EQ(ParsePackFileName("00000000000000ab.pack"), 0xabU);
  for (const char* name : {"", "ab.pack", "00000000000000AB.pack", "00000000000000ab.pac", "00000000000000ab.packs",
                           "000000000000000g.pack", "-0000000000000ab.pack", "00000000000000ab.tmp0"}) {
    EXPECT_FALSE(ParsePackFileName(name)) << name;
  }
}

TEST(Location, RoundTripAndStrictness) {
  const Location location{.pack = kNumber, .offset = 48, .record_bytes = 300, .slot = 7};
  const std::string value = EncodeLocation(location);
  EXPECT_EQ(value.size(), 20U);
  EXPECT_EQ(Must(DecodeLocation(value)), location);
  EXPECT_FALSE(DecodeLocation(value.substr(1)));
  EXPECT_FALSE(DecodeLocation(value + "x"));
  for (Location bad : {Location{.offset = 47, .record_bytes = 300}, Location{.offset = 48, .record_bytes = 71},
                       Location{.offset = 48, .record_bytes = 100 << 20},
                       Location{.offset = 1U << 30, .record_bytes = 300}}) {
    EXPECT_FALSE(DecodeLocation(EncodeLocation(bad)));
  }
  std::string reserved = value;
  reserved[19] = 1;
  EXPECT_FALSE(DecodeLocation(reserved));
}

}  // namespace
}  // namespace mirage
