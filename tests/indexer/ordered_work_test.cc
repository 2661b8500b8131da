// Jobs come back in the order they were put in, done once each, whoever does them.
#include "indexer/ordered_work.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

namespace mirage::testing {
namespace {

struct Job {
  int number = 0;
  int result = 0;
  std::thread::id by;
};

TEST(OrderedWorkTest, JobsComeBackInOrderHoweverLongEachTakes) {
  std::atomic<int> done = 0;
  OrderedWork<Job> work(3, 2, [&](Job& job) {
    if (job.number % 7 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    job.result = job.number * 3;
    job.by = std::this_thread::get_id();
    ++done;
  });
  std::set<std::thread::id> threads;
  int next = 0;
  const auto take = [&] {
    const Job job = work.Take();
    EXPECT_EQ(job.number, next++);
    EXPECT_EQ(job.result, job.number * 3);
    threads.insert(job.by);
  };
  for (int i = 0; i < 2'000; ++i) {
    work.Add({.number = i, .result = 0, .by = {}});
    while (work.size() > 20 || (work.size() > 0 && work.FirstIsDone())) take();
  }
  while (work.size() > 0) take();
  EXPECT_EQ(next, 2'000);
  EXPECT_EQ(done, 2'000);
  EXPECT_GT(threads.size(), 1U);
  EXPECT_LE(threads.size(), 4U);
}

TEST(OrderedWorkTest, WhatIsNotBegunIsDoneByWhoWaitsForIt) {
  for (const int threads : {0, -1, 2}) {
    OrderedWork<Job> work(threads, 100, [&](Job& job) { job.by = std::this_thread::get_id(); });  // too few to wake one
    for (int i = 0; i < 10; ++i) work.Add({.number = i, .result = 0, .by = {}});
    EXPECT_FALSE(work.FirstIsDone());
    for (int i = 0; i < 10; ++i) {
      const Job job = work.Take();
      EXPECT_EQ(job.number, i);
      EXPECT_EQ(job.by, std::this_thread::get_id());
    }
  }
}

TEST(OrderedWorkTest, WhatIsNotBegunWhenItEndsIsDropped) {
  std::atomic<int> begun = 0, ended = 0;
  {
    OrderedWork<Job> work(1, 1, [&](Job&) {
      ++begun;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      ++ended;
    });
    for (int i = 0; i < 100; ++i) work.Add({.number = i, .result = 0, .by = {}});
    while (begun == 0) std::this_thread::yield();
  }
  EXPECT_EQ(begun, ended);
  EXPECT_LT(begun, 100);
}

}  // namespace
}  // namespace mirage::testing
