// Who reads a long file here and there (a database, an archive's index) asks for a page at a time, and each time a block
// of some hundred KiB is decompressed for it. Where it comes back to the same neighbourhood, the kernel is given all of that
// (FUSE_NOTIFY_STORE), since it lies decompressed in the cache. One look here and one there start nothing. But who has
// looked into an eighth of a region's blocks has paid an eighth of what all of them cost, and will most likely pay for the others one by
// one: then the kernel is given the region, whose blocks are decompressed in their order by every processor.
//
// For read-only mounts, as scan_ahead.h. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
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
    std::vector<uint16_t> seen;  // of each region: windows that are not untouched
    Clock::time_point used;
  };

  void Take(const Step& step);
  File* FileOf(NodeId node);
  void Give(File& file, size_t window);

  VersionsFs& filesystem_;
  PageStore& pages_;
  std::vector<File> files_;  // of the queue's thread
  BackgroundQueue<Step> queue_;  // last: its thread uses what is above
};

}  // namespace mirage
