// Accounting: what is shared and what is exclusive adds up, and deleting frees what it says.
#include "store/accounting.h"

#include <random>

#include "store/gc.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::LibraryTest;
using testing::Must;
using testing::TemporaryDirectory;

std::string Noise(uint32_t seed, size_t size) {
  std::string bytes(size, '\0');
  std::mt19937 random(seed);
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

class AccountingTest : public LibraryTest {
 protected:
  Accounting Account(const std::vector<std::vector<ObjectId>>& owners, size_t memory_bytes = 32 << 20) {
    TemporaryDirectory scratch;
    Must(library_->Refresh());
    return Must(AccountFor(*library_, *library_->snapshot(), owners, scratch.path(), memory_bytes));
  }
  uint64_t PackBytes() {
    uint64_t bytes = 0;
    for (const std::string& name : Must(Env::Default().List(library_->packs_path()))) {
      bytes += Must(Env::Default().Stat(library_->packs_path() + "/" + name)).size_bytes;
    }
    return bytes;
  }
};

TEST_F(AccountingTest, WhatIsSharedAndWhatIsNot) {
  const auto first = Must(Publish(library_, "a", {{"only-a", Noise(1, 100'000)}, {"both", Noise(2, 50'000)}}));
  const auto second = Must(Publish(library_, "b", {{"only-b", Noise(3, 20'000)}, {"both", Noise(2, 50'000)}}));
  const Accounting accounting = Account({{first.manifest}, {second.manifest}});
  EXPECT_EQ(accounting.owners[0].exclusive.chunk_bytes, 100'000U);
  EXPECT_EQ(accounting.owners[0].shared.chunk_bytes, 50'000U);
  EXPECT_EQ(accounting.owners[1].exclusive.chunk_bytes, 20'000U);
  EXPECT_EQ(accounting.owners[1].shared.chunk_bytes, 50'000U);
  EXPECT_EQ(accounting.live.chunk_bytes, 170'000U);
  EXPECT_EQ(accounting.owners[0].shared.objects, 1U);  // the list of "both"
  EXPECT_EQ(accounting.owners[0].exclusive.objects, 3U);  // manifest, directory, list
  // Noise does not compress; a row of 40 bytes a chunk and a header a block come to it.
  EXPECT_GT(accounting.live.stored_bytes, 170'000U);
  EXPECT_LT(accounting.live.stored_bytes, 180'000U);
  const Usage &one = accounting.owners[0].exclusive, &two = accounting.owners[1].exclusive, &both = accounting.owners[0].shared;
  EXPECT_EQ(one.stored_bytes + two.stored_bytes + both.stored_bytes, accounting.live.stored_bytes);
  // With next to no memory it says the same.
  EXPECT_EQ(Account({{first.manifest}, {second.manifest}}, 4096).live.stored_bytes, accounting.live.stored_bytes);
  // As one owner they share nothing.
  const Accounting together = Account({{first.manifest, second.manifest}});
  EXPECT_EQ(together.owners[0].shared.chunks, 0U);
  EXPECT_EQ(together.owners[0].exclusive.stored_bytes, accounting.live.stored_bytes);
}

TEST_F(AccountingTest, DeletingFreesWhatIsSaid) {
  const auto first = Must(Publish(library_, "a", {{"only-a", Noise(1, 900'000)}, {"both", Noise(2, 500'000)}}));
  const auto second = Must(Publish(library_, "b", {{"both", Noise(2, 500'000)}, {"c", Noise(3, 5000)}}));
  GcOptions options;
  options.compact = true;
  options.compact_level = 3;
  options.wait_ms = 0;
  Must(CollectGarbage(*library_, options));
  const uint64_t said = Account({{first.manifest}, {second.manifest}}).owners[0].exclusive.stored_bytes;
  const uint64_t before = PackBytes();
  Must(library_->MoveRefs("branch-delete", {{"a", first.manifest, ObjectId()}, {"a/v1", first.manifest, ObjectId()}}));
  Must(CollectGarbage(*library_, options));
  const uint64_t freed = before - PackBytes();
  EXPECT_NEAR(static_cast<double>(freed), static_cast<double>(said), 0.02 * static_cast<double>(said));
}

}  // namespace
}  // namespace mirage
