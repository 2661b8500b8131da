// Serving threads move to the processor of a client that asks and waits, and go free again.
#include "mirfs/thread_placement.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <optional>
#include <thread>

#include "store/give_way.h"

namespace mirage {
namespace {

cpu_set_t Processors(pid_t thread) {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(thread, sizeof set, &set), 0);
  return set;
}

// The client stands on the last processor; a thread of this process serves.
class ThreadPlacementTest : public ::testing::Test {
 protected:
  void SetUp() override {
    all_ = Processors(0);
    if (CPU_COUNT(&all_) < 2) GTEST_SKIP() << "one processor: nowhere to move to";
    int last = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &all_)) last = cpu;
    }
    CPU_ZERO(&one_);
    CPU_SET(last, &one_);
    placement_.emplace();
    ASSERT_EQ(sched_setaffinity(0, sizeof one_, &one_), 0);
  }
  void TearDown() override {
    if (CPU_COUNT(&all_) > 0) {
      EXPECT_EQ(sched_setaffinity(0, sizeof all_, &all_), 0);
    }
  }
  void Serve(const std::function<void()>& body) {
    std::thread([&] {
      placement_->Serves();
      body();
    }).join();
  }
  void Ask(uint32_t client, int times) {
    for (int i = 0; i < times; ++i) placement_->ClientWaits(client);
  }
  void Ask(int times) { Ask(static_cast<uint32_t>(client_), times); }
  bool Is(pid_t thread, const cpu_set_t& processors, int policy) const {
    const cpu_set_t now = Processors(thread);
    return CPU_EQUAL(&now, &processors) && sched_getscheduler(thread) == policy;
  }
  bool IsPlaced(pid_t thread = 0) const { return Is(thread, one_, placement_->gives_way() ? SCHED_IDLE : SCHED_OTHER); }
  bool IsFree(pid_t thread = 0) const { return Is(thread, all_, SCHED_OTHER); }
  bool IsFreeSoon(pid_t thread = 0) const {
    for (int waited = 0; waited < 10'000; ++waited) {
      if (IsFree(thread)) return true;
      usleep(1000);
    }
    return false;
  }

  const pid_t client_ = gettid();
  cpu_set_t all_{}, one_{};
  std::optional<ThreadPlacement> placement_;
};

// The watchdog may always think that a busy machine's silence is one, so what has to be placed is asked for until it is.
TEST_F(ThreadPlacementTest, FollowsWhoAsksAgainAndAgainAndGoesFree) {
  Serve([&] {
    const auto place = [&] {
      for (int tries = 0; tries < 1000; ++tries) {
        Ask(80);
        if (IsPlaced()) return true;
        usleep(100'000);
      }
      return false;
    };
    Ask(10);
    EXPECT_TRUE(IsFree()) << "a few requests are no habit";
    EXPECT_TRUE(place()) << "it does not follow";
    Ask(1, 1);
    EXPECT_TRUE(IsFree()) << "another client came";
    EXPECT_TRUE(place());
    placement_->Other();
    EXPECT_TRUE(IsFree()) << "bytes are work for both sides at once";
    Ask(0x7ffffff0, 100);
    EXPECT_TRUE(IsFree()) << "a client that cannot be looked at";
    EXPECT_TRUE(place());
    EXPECT_TRUE(IsFreeSoon()) << "nobody asks any more";
  });
}

// An idle thread's reads would wait for everybody else's.
TEST_F(ThreadPlacementTest, DisksTakeAServingThreadForAnyOther) {
  Serve([&] {
    if (!placement_->gives_way()) return;
    EXPECT_EQ(syscall(SYS_ioprio_get, 1, 0) >> 13, 2) << "a class of its own, best effort (ioprio_set(2))";
  });
}

// Whoever serves is placed, whichever thread saw the habit; a thread that begins meanwhile too.
TEST_F(ThreadPlacementTest, AllServingThreadsArePlaced) {
  std::atomic<pid_t> other{0};
  std::atomic<bool> done{false};
  std::thread second([&] {
    placement_->Serves();
    other = gettid();
    while (!done) usleep(1000);
  });
  while (other == 0) usleep(1000);
  Serve([&] {
    bool both = false;
    for (int tries = 0; tries < 1000 && !both; ++tries) {
      Ask(80);
      both = IsPlaced() && IsPlaced(other);
      if (!both) usleep(100'000);
    }
    EXPECT_TRUE(both);
    EXPECT_TRUE(IsFreeSoon());
    EXPECT_TRUE(IsFreeSoon(other));
  });
  done = true;
  second.join();
}

TEST_F(ThreadPlacementTest, WhoIsStartedByAPlacedThreadRunsAnywhere) {
  Serve([&] {
    bool inherited = false;
    for (int tries = 0; tries < 1000 && !inherited; ++tries) {
      Ask(80);
      std::thread([&] {
        inherited = IsPlaced();
        RunAnywhere();
        EXPECT_TRUE(IsFree());
      }).join();
      if (!inherited) usleep(100'000);
    }
    EXPECT_TRUE(inherited);
    EXPECT_TRUE(IsFreeSoon());
    std::thread([&] {  // one that serves is placed as the others are, whatever it inherited
      EXPECT_EQ(sched_setaffinity(0, sizeof one_, &one_), 0);
      placement_->Serves();
      EXPECT_TRUE(IsFree());
    }).join();
  });
}

// A request that is there at once when the threads are free had waited for them: they are not placed again for a while.
TEST_F(ThreadPlacementTest, ThreadsThatStarvedAreNotPlacedAgainAtOnce) {
  Serve([&] {
    bool put_off = false;
    for (int tries = 0; tries < 1000 && !put_off; ++tries) {
      Ask(80);
      if (!IsPlaced()) {
        usleep(100'000);
        continue;
      }
      while (IsPlaced()) {
      }
      Ask(80);  // within the millisecond, mostly; behind it the habit alone decides
      put_off = !IsPlaced();
      usleep(2000);
      if (put_off) {
        Ask(80);
        put_off = !IsPlaced();
      }
    }
    EXPECT_TRUE(put_off);
    bool again = false;
    for (int tries = 0; tries < 300 && !again; ++tries) {
      usleep(100'000);
      Ask(80);
      again = IsPlaced();
    }
    EXPECT_TRUE(again) << "for a while only";
  });
}

}  // namespace
}  // namespace mirage
