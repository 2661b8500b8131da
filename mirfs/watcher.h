// A thread that follows refs.log: when another process publishes or collects, it refreshes the library, so that what was
// condemned is not waited for, and tells of the change. It serves no request itself, so it may wait for the kernel. inotify
// wakes it at once; where that does not work it looks five times a second.
#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "store/library.h"

namespace mirage {

class Watcher {
 public:
  // Called on the thread, behind the refresh, and a second time one second later: a reply that was made from the old state
  // may be on its way into the kernel's cache while the first word is given.
  using OnChange = std::function<void(const Snapshot& before, const Snapshot& after)>;
  Watcher(std::shared_ptr<Library> library, OnChange on_change);
  ~Watcher();  // stops and joins

 private:
  void Run();

  const std::shared_ptr<Library> library_;
  const OnChange on_change_;
  int inotify_ = -1, stop_ = -1;
  std::thread thread_;
};

}  // namespace mirage
