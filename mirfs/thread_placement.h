// Where a serving thread runs. A client that asks and waits, asks and waits (a find, a tar that unpacks) is served fastest by a
// thread on its own processor: the switch between the two costs a few microseconds, where waking a thread on another,
// idle processor costs tens, most of all in a virtual machine. The kernel's scheduler spreads the two instead. So a thread that
// was asked by one client many times in a row moves to the client's processor, and goes free again with the first other client.
#pragma once

#include <sched.h>

#include <cstdint>

namespace mirage {

// Of one thread; used by it alone.
class ThreadPlacement {
 public:
  ThreadPlacement();
  // A request of the thread `client` has come, which waits for the answer and does nothing meanwhile.
  void ClientWaits(uint32_t client);
  // A request that is work for both sides at once (bytes read ahead, written back), or nobody's.
  void Other();

 private:
  void Follow();
  void GoFree();
  cpu_set_t allowed_;    // what the thread was started with
  uint32_t client_ = 0;
  unsigned streak_ = 0;  // requests of `client_` in a row
  int processor_ = -1;   // where the thread is bound to; -1: free
};

}  // namespace mirage
