#include "mirfs/watcher.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <syslog.h>
#include <unistd.h>

#include <array>
#include <chrono>

namespace mirage {
namespace {
constexpr int kPollMs = 200;
constexpr std::chrono::seconds kRepeatAfter{1};
}  // namespace

Watcher::Watcher(std::shared_ptr<Library> library, OnChange on_change)
    : library_(std::move(library)), on_change_(std::move(on_change)) {
  inotify_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (inotify_ >= 0) inotify_add_watch(inotify_, (library_->path() + "/refs.log").c_str(), IN_MODIFY);
  stop_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { Run(); });
}

Watcher::~Watcher() {
  const uint64_t one = 1;
  if (write(stop_, &one, sizeof one) < 0) syslog(LOG_ERR, "watcher: cannot be stopped: %m");
  thread_.join();
  if (inotify_ >= 0) close(inotify_);
  close(stop_);
}

void Watcher::Run() {
  using Clock = std::chrono::steady_clock;
  std::shared_ptr<const Snapshot> repeat_from;
  Clock::time_point repeat_at;
  bool complained = false;
  for (;;) {
    std::array<pollfd, 2> wait{
        {{.fd = stop_, .events = POLLIN, .revents = 0}, {.fd = inotify_, .events = POLLIN, .revents = 0}}};
    poll(wait.data(), wait.size(), kPollMs);
    if (wait[0].revents != 0) return;
    if (wait[1].revents != 0) {
      std::array<char, 4096> events;
      while (read(inotify_, events.data(), events.size()) > 0) continue;
    }
    if (library_->LogHasGrown()) {
      const auto before = library_->snapshot();
      const auto swapped = library_->Refresh();
      if (!swapped && !complained) syslog(LOG_ERR, "new versions cannot be shown: %s", swapped.error().message.c_str());
      complained = !swapped;
      if (swapped && *swapped) {
        on_change_(*before, *library_->snapshot());
        if (!repeat_from) repeat_from = before;
        repeat_at = Clock::now() + kRepeatAfter;
      }
    }
    if (repeat_from && Clock::now() >= repeat_at) {
      on_change_(*repeat_from, *library_->snapshot());
      repeat_from = nullptr;
    }
  }
}

}  // namespace mirage
