// Who reads a long file here and there (a database, an archive's index) asks for a page at a time, and each time a block
// of some hundred KiB is decompressed for it. Where it comes back to the same neighbourhood, the kernel is given all of that
// (FUSE_NOTIFY_STORE), since it lies decompressed in the cache. One look here and one there start nothing.
//
// For read-only mounts, as scan_ahead.h. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "mirfs/background_queue.h"
#include "mirfs/page_store.h"
#include "mirfs/versions_fs.h"

namespace mirage {

class ReadAround {
 public:
  ReadAround(VersionsFs& filesystem, PageStore& pages);
  // A request for `size` bytes of `node` at `offset` was answered. Cheap. What it has no memory or thread for is not handed
  // over.
  void Note(NodeId node, uint64_t offset, size_t size) noexcept;

 private:
  using Clock = std::chrono::steady_clock;
  struct Step {
    NodeId node = 0;
    uint64_t window = 0;
  };
  enum class Window : uint8_t { kUntouched, kTouched, kGiven };
  // A file that is read here and there.
  struct File {
    NodeId node = 0;
    std::vector<Window> windows;
    Clock::time_point used;
  };

  void Take(const Step& step);
  File* FileOf(NodeId node);

  VersionsFs& filesystem_;
  PageStore& pages_;
  std::vector<File> files_;  // of the queue's thread, as is the next
  std::string bytes_;
  BackgroundQueue<Step> queue_;  // last: its thread uses what is above
};

}  // namespace mirage
