#include "mirfs/thread_placement.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <string_view>

namespace mirage {
namespace {

constexpr unsigned kFollowAfter = 16, kLookAgainEvery = 256;  // requests

// Field 39 of /proc/TID/stat (proc(5)): the processor it ran on last. -1: not to be known.
int LastProcessor(uint32_t thread) {
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%u/stat", thread);
  const int file = open(path.data(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  std::array<char, 1024> text;
  const ssize_t size = read(file, text.data(), text.size());
  close(file);
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

}  // namespace

ThreadPlacement::ThreadPlacement() {
  if (sched_getaffinity(0, sizeof allowed_, &allowed_) != 0) CPU_ZERO(&allowed_);
}

void ThreadPlacement::ClientWaits(uint32_t client) {
  if (client != client_) {
    client_ = client;
    streak_ = 0;
    GoFree();
  } else if (++streak_ % kLookAgainEvery == kFollowAfter) {
    Follow();
  }
}

void ThreadPlacement::Other() {
  streak_ = 0;
  GoFree();
}

void ThreadPlacement::Follow() {
  const int processor = LastProcessor(client_);
  if (processor == processor_) return;
  if (processor < 0 || processor >= CPU_SETSIZE || !CPU_ISSET(processor, &allowed_)) return GoFree();
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  if (sched_setaffinity(0, sizeof one, &one) == 0) processor_ = processor;
}

void ThreadPlacement::GoFree() {
  if (processor_ < 0) return;
  (void)sched_setaffinity(0, sizeof allowed_, &allowed_);
  processor_ = -1;
}

}  // namespace mirage
