// A serving thread moves to the processor of a client that asks and waits, and goes free again.
#include "mirfs/thread_placement.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

namespace mirage {
namespace {

cpu_set_t Mine() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  return set;
}

TEST(ThreadPlacementTest, FollowsWhoAsksAgainAndAgainAndGoesFree) {
  const cpu_set_t all = Mine();
  int last = -1;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &all)) last = cpu;
  }
  ASSERT_GE(last, 0);
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "one processor: nowhere to move to";
  // The client stands on the last processor; this thread serves.
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(last, &one);
  const pid_t client = gettid();
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  std::thread([&] {
    ASSERT_EQ(sched_setaffinity(0, sizeof all, &all), 0);
    ThreadPlacement placement;
    for (int i = 0; i < 10; ++i) placement.ClientWaits(static_cast<uint32_t>(client));
    cpu_set_t now = Mine();
    EXPECT_TRUE(CPU_EQUAL(&now, &all)) << "a few requests are no habit";
    for (int i = 0; i < 10; ++i) placement.ClientWaits(static_cast<uint32_t>(client));
    now = Mine();
    EXPECT_TRUE(CPU_EQUAL(&now, &one)) << "it does not follow";
    placement.ClientWaits(1);
    now = Mine();
    EXPECT_TRUE(CPU_EQUAL(&now, &all)) << "another client came";
    for (int i = 0; i < 20; ++i) placement.ClientWaits(static_cast<uint32_t>(client));
    placement.Other();
    now = Mine();
    EXPECT_TRUE(CPU_EQUAL(&now, &all)) << "bytes are work for both sides at once";
    for (int i = 0; i < 20; ++i) placement.ClientWaits(0x7ffffff0);
    now = Mine();
    EXPECT_TRUE(CPU_EQUAL(&now, &all)) << "a client that cannot be looked at";
  }).join();
  ASSERT_EQ(sched_setaffinity(0, sizeof all, &all), 0);
}

}  // namespace
}  // namespace mirage
