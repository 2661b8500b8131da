// For threads that are started on the way. A thread inherits from the one that starts it the processors it may run on and its policy,
// and one that serves a mount may be bound to its client's processor just then (mirfs/thread_placement.h).
#pragma once

namespace mirage {

// The calling thread runs on the processors, and by the policy, that the program was started with.
void RunAnywhere();
// The same, for work that may as well come too late: threads that somebody waits for go first.
void GiveWay();

}  // namespace mirage
