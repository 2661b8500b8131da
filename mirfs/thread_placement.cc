#include "mirfs/thread_placement.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <exception>
#include <string_view>

#include "store/give_way.h"

namespace mirage {
namespace {

// Requests. Where the client is costs 2 us to know; each request from another processor takes 13 us more, and a client may move
// every few milliseconds. (Looked for every 4, 8, 16 and 64 requests, an untar took 1.21, 1.18, 1.19 and 1.33 s.)
constexpr unsigned kFollowAfter = 16, kLookAgainEvery = 16;
constexpr auto kSilence = std::chrono::milliseconds(4);      // ends a placement
constexpr auto kAtOnce = std::chrono::milliseconds(1);       // a request that comes so soon had been waiting
constexpr auto kFirstPutOff = std::chrono::milliseconds(100), kLastPutOff = std::chrono::milliseconds(10'000);
constexpr auto kGoesWell = std::chrono::seconds(1);          // a placement that lasts so long

// A thread's stat file, of it alone: that of a process adds up its threads. -1: there is none.
int OpenStat(uint32_t thread) {
  std::array<char, 64> path;
  std::snprintf(path.data(), path.size(), "/proc/%u/task/%u/stat", thread, thread);
  return open(path.data(), O_RDONLY | O_CLOEXEC);
}

// Its field 39 (proc(5)): the processor that the thread ran on last. -1: not to be known.
int LastProcessor(int stat_file) {
  std::array<char, 1024> text;
  const ssize_t size = stat_file < 0 ? -1 : pread(stat_file, text.data(), text.size(), 0);
  std::string_view rest(text.data(), size > 0 ? static_cast<size_t>(size) : 0);
  const size_t name_end = rest.rfind(')');  // field 2, the name, may hold anything
  if (name_end == rest.npos) return -1;
  rest.remove_prefix(name_end + 1);
  for (int field = 3; field <= 39; ++field) {
    const size_t space = rest.find(' ');
    if (space == rest.npos) return -1;
    rest.remove_prefix(space + 1);
  }
  int processor = -1;
  std::from_chars(rest.data(), rest.data() + rest.size(), processor);
  return processor;
}

// A disk's scheduler takes the reads of a SCHED_IDLE thread for idle ones too (ioprio_set(2)), unless the thread has a class: the
// calling one gets what it goes by otherwise.
void KeepDiskPriority() {
  // Not from linux/ioprio.h, which is no C++.
  constexpr int kThread = 1, kClassShift = 13, kNoClass = 0, kUsual = (2 << kClassShift) | 4;  // best effort, the middle level
  const auto now = static_cast<int>(syscall(SYS_ioprio_get, kThread, 0));
  if (now == kUsual || (now >= 0 && now >> kClassShift == kNoClass)) (void)syscall(SYS_ioprio_set, kThread, 0, kUsual);
}

bool SetPolicy(pid_t thread, int policy) {
  const sched_param none{};
  return sched_setscheduler(thread, policy, &none) == 0;
}

}  // namespace

class ThreadPlacement::Registration {
 public:
  ~Registration() { Leave(); }
  bool IsIn(const ThreadPlacement* placement) const { return placement_ == placement; }
  void Enter(ThreadPlacement* placement) {
    Leave();
    const std::lock_guard lock(placement->mutex_);
    placement->threads_.push_back(thread_);
    placement_ = placement;
    placement->PlaceThread(thread_);
  }

 private:
  void Leave() {
    if (placement_ == nullptr) return;
    const std::lock_guard lock(placement_->mutex_);
    std::erase(placement_->threads_, thread_);
    placement_ = nullptr;
  }
  const pid_t thread_ = gettid();
  ThreadPlacement* placement_ = nullptr;
};

ThreadPlacement::ThreadPlacement() {
  if (sched_getaffinity(0, sizeof allowed_, &allowed_) != 0) CPU_ZERO(&allowed_);
  // Whether there is a way back shows when it is gone, by a thread that is of no more use.
  try {
    std::thread([this] {
      may_give_way_ = sched_getscheduler(0) == SCHED_OTHER && SetPolicy(0, SCHED_IDLE) && SetPolicy(0, SCHED_OTHER);
    }).join();
  } catch (const std::exception&) {  // no thread for it: no
  }
}

ThreadPlacement::~ThreadPlacement() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (watchdog_.joinable()) watchdog_.join();
  if (stat_file_ >= 0) close(stat_file_);
}

void ThreadPlacement::ClientWaits(uint32_t client) {
  try {
    requests_.fetch_add(1, std::memory_order_relaxed);
    if (client_.load(std::memory_order_relaxed) != client) {
      client_ = client;
      streak_ = 0;
      Free();
      return;
    }
    const unsigned streak = ++streak_;
    if (streak >= kFollowAfter && (streak - kFollowAfter) % kLookAgainEvery == 0) Follow(client);
  } catch (const std::exception&) {  // no memory, no thread: they run where they run
  }
}

void ThreadPlacement::Other() {
  streak_ = 0;
  Free();
}

void ThreadPlacement::Serves() {
  thread_local Registration registration;
  try {
    if (registration.IsIn(this)) return;
    if (may_give_way_) KeepDiskPriority();
    registration.Enter(this);
  } catch (const std::exception&) {  // no memory: it runs where it runs
  }
}

void ThreadPlacement::Follow(uint32_t client) {
  if (CPU_COUNT(&allowed_) < 2) return;
  const std::lock_guard lock(mutex_);
  if (stat_of_ != client) {
    if (stat_file_ >= 0) close(stat_file_);
    stat_file_ = OpenStat(client);
    stat_of_ = client;
  }
  const int processor = LastProcessor(stat_file_);
  if (processor < 0) stat_of_ = 0;  // it has ended, and another may have its number
  if (processor < 0 || processor >= CPU_SETSIZE || !CPU_ISSET(processor, &allowed_)) return PlaceAll(-1);
  if (processor == processor_ || Clock::now() < not_before_) return;
  if (!watchdog_.joinable()) watchdog_ = std::thread([this] { Watch(); });
  PlaceAll(processor);
  wake_.notify_all();
}

void ThreadPlacement::Free() {
  if (!placed_.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(mutex_);
  PlaceAll(-1);
}

void ThreadPlacement::PlaceAll(int processor) {
  if (processor == processor_) return;
  processor_ = processor;
  if (processor >= 0) placed_ = true;
  for (const pid_t thread : threads_) PlaceThread(thread);
  if (processor < 0) placed_ = false;  // last: whoever sees it need not wait for us
}

void ThreadPlacement::PlaceThread(pid_t thread) const {
  cpu_set_t one;
  CPU_ZERO(&one);
  if (processor_ >= 0) CPU_SET(processor_, &one);
  if (may_give_way_) SetPolicy(thread, processor_ >= 0 ? SCHED_IDLE : SCHED_OTHER);
  (void)sched_setaffinity(thread, sizeof one, processor_ >= 0 ? &one : &allowed_);
}

void ThreadPlacement::Watch() {
  RunAnywhere();
  std::unique_lock lock(mutex_);
  while (!stop_) {
    wake_.wait(lock, [this] { return stop_ || processor_ >= 0; });
    const auto since = Clock::now();
    for (uint64_t seen = requests_; !stop_ && processor_ >= 0;) {
      wake_.wait_for(lock, kSilence, [this] { return stop_ || processor_ < 0; });
      if (stop_ || processor_ < 0) break;
      if (const uint64_t now = requests_; now != seen) {
        seen = now;
        if (Clock::now() - since > kGoesWell) put_off_ = {};
        continue;
      }
      PlaceAll(-1);
      wake_.wait_for(lock, kAtOnce, [this] { return stop_; });
      if (requests_ == seen) break;
      put_off_ = std::clamp<Clock::duration>(2 * put_off_, kFirstPutOff, kLastPutOff);
      not_before_ = Clock::now() + put_off_;
    }
  }
}

}  // namespace mirage
