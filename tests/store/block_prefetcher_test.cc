#include "store/block_prefetcher.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

namespace mirage {
namespace {

constexpr uint32_t kBlock = 1000;

Location At(PackNumber pack, uint32_t block) {
  return {.pack = pack, .offset = 48 + block * kBlock, .record_bytes = kBlock, .slot = 0};
}

// Packs of 100 blocks of 1000 bytes each. Keeps what was decoded.
class BlockPrefetcherTest : public ::testing::Test {
 protected:
  BlockPrefetcher::Window ReadWindow(PackNumber pack, uint64_t offset, size_t bytes) {
    const uint64_t first = (offset - 48) / kBlock, last = std::min<uint64_t>(first + bytes / kBlock, 100);
    if (first >= last) return {.next_offset = offset, .decode = {}};
    return {.next_offset = 48 + last * kBlock, .decode = [this, pack, first, last] {
              const std::lock_guard lock(mutex_);
              for (uint64_t block = first; block < last; ++block) {
                EXPECT_TRUE(decoded_.emplace(pack, block).second) << "block " << block << " twice";
              }
              arrived_.notify_all();
            }};
  }
  bool WaitFor(PackNumber pack, uint64_t block) {
    std::unique_lock lock(mutex_);
    return arrived_.wait_for(lock, std::chrono::seconds(60), [&] { return decoded_.contains({pack, block}); });
  }
  size_t decoded() {
    const std::lock_guard lock(mutex_);
    return decoded_.size();
  }

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::set<std::pair<PackNumber, uint64_t>> decoded_;  // guarded by mutex_
  std::unique_ptr<BlockPrefetcher> prefetcher_ = std::make_unique<BlockPrefetcher>(
      20 * kBlock, 5 * kBlock, 2,
      [this](PackNumber pack, uint64_t offset, size_t bytes) { return ReadWindow(pack, offset, bytes); });
};

TEST_F(BlockPrefetcherTest, TwoBlocksInARowBringTheNextOnes) {
  prefetcher_->Note(At(1, 10));
  prefetcher_->Note(At(1, 10));
  prefetcher_->Note(At(1, 11));
  EXPECT_TRUE(WaitFor(1, 13));
  prefetcher_.reset();
  EXPECT_EQ(decoded(), 2u);
}

TEST_F(BlockPrefetcherTest, WhoReadsOnIsReadAheadForFurther) {
  for (uint32_t block = 10; block < 40; ++block) {
    prefetcher_->Note(At(1, block));
    if (block > 10) {
      EXPECT_TRUE(WaitFor(1, block + 1));
    }
  }
  EXPECT_TRUE(WaitFor(1, 59));  // 20 blocks behind the end of block 39, and no more than the window that reaches them
  prefetcher_.reset();
  EXPECT_LE(decoded(), 52u);
}

// Two files that lie in blocks side by side, then one block in six: as much is read ahead as the two earned.
TEST_F(BlockPrefetcherTest, WhoGoesOverMostBlocksIsNotReadAheadForOn) {
  prefetcher_->Note(At(1, 0));
  for (uint32_t block = 1; block < 100; block += 6) prefetcher_->Note(At(1, block));
  prefetcher_.reset();
  EXPECT_LE(decoded(), 4u);
}

TEST_F(BlockPrefetcherTest, FollowsAReaderToTheEndOfThePack) {
  for (uint32_t block = 0; block < 100; ++block) {
    prefetcher_->Note(At(7, block));
    if (block >= 1 && block < 99) {
      EXPECT_TRUE(WaitFor(7, block + 1));
    }
  }
  prefetcher_.reset();
  EXPECT_EQ(decoded(), 98u);  // all but the two that showed the order, each once
}

// Whoever comes to the first block of another pack without having read one to its end has earned nothing there.
TEST_F(BlockPrefetcherTest, WhatIsEarnedGoesWithTheReaderIntoTheNextPack) {
  prefetcher_->Note(At(3, 0));
  for (uint32_t block = 80; block < 100; ++block) {
    prefetcher_->Note(At(1, block));
    if (block > 80) {
      EXPECT_TRUE(WaitFor(1, std::min(block + 1, 99U)));
    }
  }
  // The end is found by a thread that asks for more, in its own time.
  for (PackNumber pack = 10;; ++pack) {
    prefetcher_->Note(At(pack, 0));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::lock_guard lock(mutex_);
    if (decoded_.contains({pack, 1})) break;
    ASSERT_LT(pack, 10'000u);
  }
  prefetcher_.reset();
  EXPECT_FALSE(decoded_.contains({3, 1}));
}

TEST_F(BlockPrefetcherTest, ReadersAtRandomBringNothing) {
  for (const uint32_t block : {50, 3, 90, 17, 60, 2, 44, 80, 33, 71, 5}) prefetcher_->Note(At(1, block));
  prefetcher_.reset();
  EXPECT_EQ(decoded(), 0u);
}

TEST_F(BlockPrefetcherTest, ReadersOfSeveralPacksAreKeptApart) {
  for (uint32_t block = 0; block < 50; ++block) {
    for (PackNumber pack = 1; pack <= 8; ++pack) prefetcher_->Note(At(pack, block));
  }
  for (PackNumber pack = 1; pack <= 8; ++pack) EXPECT_TRUE(WaitFor(pack, 50)) << pack;
}

// A reader that is faster than the disk comes into the window that is being read for it, and past it.
TEST_F(BlockPrefetcherTest, WhatAReaderComesIntoIsNotReadAgain) {
  bool first = true;  // of the windows: read by one thread at a time, since the next one is asked for behind it
  prefetcher_ = std::make_unique<BlockPrefetcher>(20 * kBlock, 5 * kBlock, 2,
                                                  [&](PackNumber pack, uint64_t offset, size_t bytes) {
    if (std::exchange(first, false)) {
      for (uint32_t block = 12; block < 15; ++block) prefetcher_->Note(At(pack, block));
    }
    return ReadWindow(pack, offset, bytes);
  });
  prefetcher_->Note(At(1, 10));
  prefetcher_->Note(At(1, 11));
  EXPECT_TRUE(WaitFor(1, 20));  // six blocks, of the credit of three; none twice
  prefetcher_.reset();
}

}  // namespace
}  // namespace mirage
