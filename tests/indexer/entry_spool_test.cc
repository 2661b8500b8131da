#include "indexer/entry_spool.h"

#include <gtest/gtest.h>

#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

std::vector<std::string> Paths(EntrySpool& spool) {
  std::vector<std::string> paths;
  const EntrySpool::Visit visit = [&](const std::string& path, Entry, const Fingerprint&) -> Status {
    paths.push_back(path);
    return {};
  };
  Must(spool.ForEach(visit));
  return paths;
}

TEST(EntrySpoolTest, GivesADirectoryBeforeWhatIsInItAndNamesAsBytes) {
  TemporaryDirectory directory;
  EntrySpool spool(Env::Default(), directory.path());
  for (const char* path : {"a-b", "b", "a/x", "a", "", "a\xff", "a/x/y", "A"}) {
    Must(spool.Add(spool.Ticket(), path, Entry{}));
  }
  EXPECT_EQ(Paths(spool), (std::vector<std::string>{"", "A", "a", "a/x", "a/x/y", "a-b", "a\xff", "b"}));
}

TEST(EntrySpoolTest, SpilledRunsMergeAndTheLastTicketHolds) {
  TemporaryDirectory directory;
  EntrySpool spool(Env::Default(), directory.path(), 20'000);  // some dozens of entries a run
  Entry entry;
  for (uint32_t round = 0; round < 3; ++round) {
    for (uint32_t i = 0; i < 2000; ++i) {
      entry.uid = round * 10'000 + i;
      entry.target = "t" + std::to_string(i);
      // The middle round comes with the highest tickets.
      Fingerprint fingerprint;
      fingerprint.bytes.fill(static_cast<uint8_t>(i));
      Must(spool.Add(round == 1 ? 1'000'000 + i : spool.Ticket(), fmt::format("d{}/f{}", i % 7, i), entry, fingerprint));
    }
  }
  for (int pass = 0; pass < 2; ++pass) {
    uint32_t count = 0;
    std::string last;
    const EntrySpool::Visit visit = [&](const std::string& path, Entry got, const Fingerprint& fingerprint) -> Status {
      EXPECT_LT(last, path);
      last = path;
      const uint32_t i = got.uid % 10'000;
      EXPECT_EQ(got.uid / 10'000, 1u);
      EXPECT_EQ(path, fmt::format("d{}/f{}", i % 7, i));
      EXPECT_EQ(got.target, "t" + std::to_string(i));
      EXPECT_EQ(fingerprint.bytes[15], static_cast<uint8_t>(i));
      ++count;
      return {};
    };
    Must(spool.ForEach(visit));
    EXPECT_EQ(count, 2000u);
  }
}

TEST(EntrySpoolTest, AnErrorOfTheVisitorEndsIt) {
  TemporaryDirectory directory;
  EntrySpool spool(Env::Default(), directory.path());
  Must(spool.Add(1, "a", Entry{}));
  const Status status = spool.ForEach([](const std::string&, Entry, const Fingerprint&) -> Status { return Fail(EINTR, "enough"); });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, EINTR);
}

}  // namespace
}  // namespace mirage::testing
