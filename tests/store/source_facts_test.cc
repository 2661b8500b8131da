// The file of source facts: rows are found in any order, and bytes that do not check are as if there were none.
#include "store/source_facts.h"

#include <algorithm>
#include <fstream>
#include <random>

#include "store/gc.h"
#include "store/fsck.h"
#include "tests/testing/memory_store.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

class SourceFactsTest : public LibraryTest {
 protected:
  // `count` files in directories of a hundred, in canonical order.
  std::vector<std::string> Write(const std::string& branch, const ObjectId& manifest, uint64_t count) {
    const auto writer = Must(SourceFactsWriter::Create(library_->env(), directory_ / "facts"));
    std::vector<std::string> paths;
    Must(writer->Add("", {FileFacts{1, 2, 3, 4}, {}}));
    for (uint64_t i = 0; i < count; ++i) {
      if (i % 100 == 0) {
        paths.push_back(fmt::format("d{:05}", i / 100));
        Must(writer->Add(paths.back(), {FileFacts{0, i, -1, 0}, {}}));
      }
      paths.push_back(fmt::format("d{:05}/file {:07}", i / 100, i));
      SourceFile file{FileFacts{1, i, static_cast<int64_t>(i) - 10, static_cast<uint32_t>(i)}, FingerprintOf(i)};
      if (i % 3 == 1) file.facts.reset();
      if (i % 3 == 2) file.fingerprint = {};
      Must(writer->Add(paths.back(), file));
    }
    Must(writer->Finish({{"uuid a", 0, 100}, {"uuid b", INT64_MIN, 7}}, {{7, 8, 9}}));
    Must(writer->Keep(path(), branch, manifest, 3));
    return paths;
  }
  static Fingerprint FingerprintOf(uint64_t i) {
    Fingerprint fingerprint;
    for (size_t at = 0; at < fingerprint.bytes.size(); ++at) fingerprint.bytes[at] = static_cast<uint8_t>((i >> at) + at);
    return fingerprint;
  }
  std::string File(const std::string& branch) const { return SourceFactsPath(path(), branch); }
};

TEST_F(SourceFactsTest, RowsAreFoundInAnyOrder) {
  auto paths = Write("web", HashBytes("m"), 30'000);
  const auto reader = Must(SourceFactsReader::Open(library_->env(), File("web")));
  EXPECT_EQ(reader->manifest(), HashBytes("m"));
  EXPECT_TRUE(reader->IsOf(3));
  EXPECT_FALSE(reader->IsOf(4)) << "a repair came between";
  EXPECT_EQ(reader->filesystems(), (std::vector<FactsFilesystem>{{"uuid a", 0, 100}, {"uuid b", INT64_MIN, 7}}));
  Must(reader->Check());
  EXPECT_EQ(reader->key(), (FingerprintKey{{7, 8, 9}}));
  EXPECT_EQ(reader->Find(""), (SourceFile{FileFacts{1, 2, 3, 4}, {}}));
  std::shuffle(paths.begin(), paths.end(), std::mt19937(1));
  for (const std::string& path : paths) {
    const auto found = reader->Find(path);
    ASSERT_TRUE(found) << path;
    if (path.size() == 6) continue;  // a directory
    const uint64_t i = std::stoull(path.substr(12));
    ASSERT_EQ(found->facts.has_value(), i % 3 != 1);
    if (found->facts) {
      EXPECT_EQ(found->facts->ctime_sec, static_cast<int64_t>(i) - 10);
    }
    EXPECT_EQ(found->fingerprint, i % 3 == 2 ? Fingerprint() : FingerprintOf(i));
  }
  for (const char* absent : {"a", "d", "d00000/", "d00000/file", "d00000/file 00000000", "z", "d00299/file 9"}) {
    EXPECT_FALSE(reader->Find(absent)) << absent;
  }
}

// GMAC's first test case in the proposal of GCM (McGrew and Viega): key, nonce and bytes all zero or empty. And what makes
// it of use: it is of all bytes in their order, however they come, and of the key.
TEST(FingerprintTest, IsGmac) {
  Fingerprinter zero{FingerprintKey{}};
  EXPECT_EQ(zero.Of("").view(), std::string_view("\x58\xe2\xfc\xce\xfa\x7e\x30\x61\x36\x7f\x1d\x57\xa4\xe7\x45\x5a", 16));
  const std::string bytes = RandomBytes(100'000, 5);
  Fingerprinter one(FingerprintKey::Random()), other(FingerprintKey::Random());
  const Fingerprint whole = one.Of(bytes);
  EXPECT_NE(whole, other.Of(bytes));
  for (const size_t step : {1UL, 15UL, 16UL, 17UL, 4096UL, 99'999UL}) {
    for (size_t at = 0; at < bytes.size(); at += step) one.Update(std::string_view(bytes).substr(at, step));
    EXPECT_EQ(one.Finish(), whole) << step;
  }
  std::string changed = bytes;
  for (const size_t at : {0UL, 50'000UL, 99'999UL}) {
    changed[at] ^= 1;
    EXPECT_NE(one.Of(changed), whole) << at;
    changed[at] ^= 1;
  }
  EXPECT_NE(one.Of(bytes + '\0'), whole);
  EXPECT_NE(one.Of(std::string_view(bytes).substr(1)), whole);
  EXPECT_EQ(one.Of(changed), whole);
}

TEST_F(SourceFactsTest, ADamagedBlockIsAsIfItWereNotThere) {
  const auto paths = Write("web", HashBytes("m"), 30'000);
  const auto size = std::filesystem::file_size(File("web"));
  std::fstream file(File("web"), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(size / 2)).put('\xff');
  file.close();
  const auto reader = Must(SourceFactsReader::Open(library_->env(), File("web")));
  EXPECT_EQ(reader->Check().error().code, EIO);
  size_t missing = 0;
  for (const std::string& path : paths) missing += !reader->Find(path);
  EXPECT_GT(missing, 0U);
  EXPECT_LT(missing, paths.size() / 2);
  std::filesystem::resize_file(File("web"), size - 1);
  EXPECT_EQ(SourceFactsReader::Open(library_->env(), File("web")).error().code, EIO);
  std::filesystem::resize_file(File("web"), 0);
  EXPECT_EQ(SourceFactsReader::Open(library_->env(), File("web")).error().code, EIO);
}

TEST_F(SourceFactsTest, FsckNamesDamagedOnesAndRepairRemovesThem) {
  Publish(library_, "web", {{"a", "1"}});
  Write("web", HashBytes("m"), 100);
  Write("db", HashBytes("m"), 100);
  std::fstream(File("web"), std::ios::in | std::ios::out | std::ios::binary).seekp(100).put('\xff');
  std::vector<std::string> said;
  const auto check = [&](bool repair) {
    said.clear();
    FsckOptions options;
    options.repair = repair;
    return Must(Fsck(path(), options, [&](const FsckFinding& finding) { said.push_back(finding.what); }, {}));
  };
  EXPECT_EQ(check(false).damaged, 0U);  // nothing is lost by it
  ASSERT_EQ(said.size(), 1U);
  EXPECT_NE(said[0].find("facts/web"), std::string::npos) << said[0];
  EXPECT_TRUE(std::filesystem::exists(File("web")));
  library_.reset();
  check(true);
  EXPECT_FALSE(std::filesystem::exists(File("web")));
  EXPECT_TRUE(std::filesystem::exists(File("db")));
}

TEST_F(SourceFactsTest, GcRemovesThoseOfBranchesThatAreGone) {
  Publish(library_, "web", {{"a", "1"}});
  Write("web", HashBytes("m"), 10);
  Write("gone", HashBytes("m"), 10);
  std::ofstream(path() + "/facts/no branch") << "x";
  GcOptions options;
  options.dry_run = true;
  Must(CollectGarbage(*library_, options));
  EXPECT_TRUE(std::filesystem::exists(File("gone")));
  Must(CollectGarbage(*library_, {}));
  EXPECT_TRUE(std::filesystem::exists(File("web")));
  EXPECT_FALSE(std::filesystem::exists(File("gone")));
  EXPECT_FALSE(std::filesystem::exists(path() + "/facts/no branch"));
}

}  // namespace
}  // namespace mirage::testing
