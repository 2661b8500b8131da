// Where serving threads run. A client that asks and waits, asks and waits (a find, a tar that unpacks) is served fastest on its own
// processor: the switch between the two costs a few microseconds, where waking a thread on another, idle processor costs tens, most
// of all in a virtual machine. The kernel's scheduler spreads the two instead: it puts whoever wakes on an idle processor.
// So, from a streak of one client's requests on,
//  - all serving threads are bound to the processor on which the client ran last, and
//  - have the policy SCHED_IDLE (sched(7)): a processor that runs nothing else counts as idle, and the client, woken by a reply,
//    stays there. On two processors that halves what each request of an unpacking tar takes.
//
// Threads of that policy give way to all others, and would leave the client waiting on a processor that somebody else wants. So a
// watchdog ends the placement when no request has come for some milliseconds: its client is at work, or its threads wait for the
// processor. If a request is there as soon as they run freely again, they waited: then the next placement is put off, each
// time for twice as long. Going back from SCHED_IDLE takes CAP_SYS_NICE (or RLIMIT_NICE): without it threads are bound, and
// keep their policy.
//
// Thread-safe. One a session; it must outlive the threads that call it. Throws nothing; but libfuse may cancel a thread in here, which
// unwinds it.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace mirage {

class ThreadPlacement {
 public:
  ThreadPlacement();
  ~ThreadPlacement();
  ThreadPlacement(const ThreadPlacement&) = delete;
  ThreadPlacement& operator=(const ThreadPlacement&) = delete;

  // The calling thread has a request of the thread `client`, which waits for the answer and does nothing meanwhile.
  void ClientWaits(uint32_t client);
  // The calling thread is going to serve. Whoever asks is known when the request has come, and then it may have begun on
  // a thread that inherited what another is placed by.
  void Serves();
  // A request that is work for both sides at once: bytes read ahead, written back.
  void Other();

  bool gives_way() const { return may_give_way_; }  // placed threads get SCHED_IDLE

 private:
  using Clock = std::chrono::steady_clock;
  class Registration;  // of a serving thread, as long as it lives

  void Follow(uint32_t client);
  void Free();
  void PlaceAll(int processor);        // mutex_ held
  void PlaceThread(pid_t thread) const;  // likewise
  void Watch();

  bool may_give_way_ = false;
  cpu_set_t allowed_;                  // what the process was started with
  std::atomic<uint32_t> client_{0};
  std::atomic<unsigned> streak_{0};    // requests of `client_` in a row
  std::atomic<uint64_t> requests_{0};  // of any
  std::atomic<bool> placed_{false};
  std::mutex mutex_;                   // guards all below
  int stat_file_ = -1;                 // /proc's, of the thread `stat_of_`; -1: there is none
  uint32_t stat_of_ = 0;
  std::vector<pid_t> threads_;
  int processor_ = -1;                 // where they are bound to; -1: they are free
  Clock::duration put_off_{};          // for how long the last placement was; zero: they go well
  Clock::time_point not_before_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread watchdog_;               // from the first placement on
};

}  // namespace mirage
