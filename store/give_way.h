// For threads whose work may as well come too late: those that somebody waits for go first.
#pragma once

#include <sys/resource.h>

namespace mirage {

// The calling thread, from here on. In Linux a thread has a nice value of its own.
inline void GiveWay() { (void)setpriority(PRIO_PROCESS, 0, 5); }

}  // namespace mirage
