#include "store/block_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "store/pack.h"

namespace mirage {
namespace {

bool IsFilledWith(const BlockMemory& memory, char byte) {
  return std::all_of(memory.data(), memory.data() + memory.size(), [byte](char c) { return c == byte; });
}

TEST(BlockMemoryTest, HoldsAnySize) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{100'000}, kBlockTargetBytes - 1, kBlockTargetBytes,
                            kBlockTargetBytes + 60'000, 2 * kBlockTargetBytes, kMaxBlockRawBytes}) {
    BlockMemory memory(size);
    ASSERT_EQ(memory.size(), size);
    EXPECT_GE(memory.taken_bytes(), size);
    if (size == 0) continue;
    std::memset(memory.data(), 'x', size);
    EXPECT_TRUE(IsFilledWith(memory, 'x')) << size;
  }
}

// What the caches count is what is taken.
TEST(BlockMemoryTest, ABlockOfTheUsualSizeTakesLittleMoreThanItself) {
  EXPECT_LE(BlockMemory(kBlockTargetBytes).taken_bytes(), kBlockTargetBytes / 8 * 9);
  EXPECT_LE(BlockMemory(1000).taken_bytes(), 1000u);
}

TEST(BlockMemoryTest, APlaceThatWasLeftIsTheNextToBeUsed) {
  const char* left = nullptr;
  {
    const BlockMemory memory(kBlockTargetBytes);
    left = memory.data();
  }
  const BlockMemory next(kBlockTargetBytes + 1), another(kBlockTargetBytes);
  EXPECT_EQ(next.data(), left);
  EXPECT_NE(another.data(), left);
}

TEST(BlockMemoryTest, MovesWithoutCopying) {
  BlockMemory memory(kBlockTargetBytes);
  const char* data = memory.data();
  std::memset(memory.data(), 'm', memory.size());
  BlockMemory other(std::move(memory));
  EXPECT_EQ(other.data(), data);
  memory = BlockMemory(10);
  memory = std::move(other);
  EXPECT_EQ(memory.data(), data);
  EXPECT_TRUE(IsFilledWith(memory, 'm'));
}

// More than several arenas, on several threads; nobody writes into what another has.
TEST(BlockMemoryTest, PlacesDoNotOverlap) {
  std::vector<std::thread> threads;
  for (char name = 'a'; name < 'e'; ++name) {
    threads.emplace_back([name] {
      std::mt19937 random(static_cast<unsigned>(name));
      std::vector<BlockMemory> held;
      for (int i = 0; i < 200; ++i) {
        if (held.size() > 20) {
          const size_t at = random() % held.size();
          ASSERT_TRUE(IsFilledWith(held[at], name));
          std::swap(held[at], held.back());
          held.pop_back();
        }
        held.emplace_back(kBlockTargetBytes - 20'000 + random() % 80'000);
        std::memset(held.back().data(), name, held.back().size());
      }
      for (const BlockMemory& memory : held) ASSERT_TRUE(IsFilledWith(memory, name));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace mirage
