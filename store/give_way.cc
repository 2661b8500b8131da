#include "store/give_way.h"

#include <sched.h>
#include <sys/resource.h>

namespace mirage {
namespace {

struct Start {
  cpu_set_t processors{};
  int policy = SCHED_OTHER;
  sched_param parameters{};
  bool known = sched_getaffinity(0, sizeof processors, &processors) == 0 && (policy = sched_getscheduler(0)) >= 0 &&
               sched_getparam(0, &parameters) == 0;
};
const Start at_start;  // before main, on its thread

}  // namespace

void RunAnywhere() {
  if (!at_start.known) return;
  if (sched_getscheduler(0) != at_start.policy) (void)sched_setscheduler(0, at_start.policy, &at_start.parameters);
  (void)sched_setaffinity(0, sizeof at_start.processors, &at_start.processors);
}

void GiveWay() {
  RunAnywhere();
  (void)setpriority(PRIO_PROCESS, 0, 5);  // in Linux a thread has a nice value of its own
}

}  // namespace mirage
