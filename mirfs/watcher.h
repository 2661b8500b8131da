// A thread that follows refs.log: when another process publishes, it refreshes the library and tells the kernel which
// names differ. It serves no request itself, so it may wait for the kernel. inotify wakes it at once; where that does
// not work it looks five times a second.
#pragma once

#include <memory>
#include <thread>

#include "mirfs/invalidator.h"
#include "mirfs/versions_fs.h"
#include "store/library.h"

namespace mirage {

class Watcher {
 public:
  Watcher(std::shared_ptr<Library> library, const VersionsFs& filesystem, Invalidator& invalidator);
  ~Watcher();  // stops and joins

 private:
  void Run();

  const std::shared_ptr<Library> library_;
  const VersionsFs& filesystem_;
  Invalidator& invalidator_;
  int inotify_ = -1, stop_ = -1;
  std::thread thread_;
};

}  // namespace mirage
