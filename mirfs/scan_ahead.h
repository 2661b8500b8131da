// Who scans a tree (grep -r, tar, a virus scanner) reads its small files in the order of their directories, and asks for each: on
// files of some KiB the asking takes longer than all else. The scan is seen after two files in a row, and the kernel is
// given the next ones' pages before it asks (FUSE_NOTIFY_STORE), by a thread of its own: while the scanner works on one
// file, the next are decompressed and handed over. Who reads at random starts nothing; what is handed over unasked is at
// most a window, and is the kernel's to drop, like all its pages.
//
// For read-only mounts, where a file never changes: pages can be stored at any time, and twice. Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "mirfs/background_queue.h"
#include "mirfs/page_store.h"
#include "mirfs/versions_fs.h"

namespace mirage {

class ScanAhead {
 public:
  ScanAhead(VersionsFs& filesystem, PageStore& pages);

  // A request to read `node` from its beginning was answered. Cheap. What it has no memory or thread for is not handed over.
  void Note(NodeId node) noexcept;

 private:
  using Clock = std::chrono::steady_clock;
  struct Step {
    NodeId before = 0, node = 0;  // `before`: the file read before it in the same directory; 0: none
    NodeId directory = 0;
    bool again = false;           // the kernel was given it before, and has dropped it
  };
  // A directory that is being scanned: its small files in its order.
  struct Scan {
    NodeId directory = 0;
    std::vector<SmallFile> files;
    std::unordered_map<NodeId, size_t> places;
    size_t next = 0;       // behind the last that was handed over or asked for
    size_t window = 0;     // files
    bool dropped = false;  // what the kernel was given before is not there any more
    Clock::time_point used;
  };

  void Take(const Step& step);
  Scan* ScanOf(const Step& step, bool* is_new);
  void HandOver(Scan& scan);

  VersionsFs& filesystem_;
  PageStore& pages_;
  std::vector<Scan> scans_;  // of the thread

  std::atomic<NodeId> newest_{0};      // asked for last
  std::atomic<bool> scanning_{false};  // the last step was a scan's: one file of another directory is enough to go on
  std::mutex mutex_;  // guards the next two
  NodeId last_directory_ = 0, last_node_ = 0;
  BackgroundQueue<Step> queue_;  // last: its thread uses what is above
};

}  // namespace mirage
