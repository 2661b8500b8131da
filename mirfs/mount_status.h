// What a mount tells of itself, to `mirage mounts`: each daemon listens on a Unix socket in its library (mounts/, as
// private or as shared as all of it) and answers whoever connects with one JSON object, then closes. It takes no request:
// nothing can be asked of it but this.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "store/library.h"

namespace mirage {

struct MountStatus {
  std::string mountpoint;
  std::string shows;   // "all versions", "branch web", "version web/v1", "edit of web"
  std::string user{};  // "user@host" of the daemon
  int64_t pid = 0;
  int64_t since = 0;                                           // seconds since 1970
  uint64_t memory_bytes = 0;                                   // resident
  uint64_t inodes = 0;                                         // what the kernel holds of a read-only mount
  uint64_t requests = 0;                                       // of the kernel, so far
  std::map<std::string, uint64_t> requests_by_kind{};          // {"lookup", 3}; those that came
  uint64_t hand_overs = 0;  // of pages that the kernel had not asked for (scan_ahead.h, read_around.h)
  uint64_t cache_hits = 0, cache_misses = 0, cache_bytes = 0;  // decoded blocks
};

// This process's resident size.
uint64_t ResidentBytes();

// The mounts of a library whose daemons answer, by mount point. Sockets that dead daemons left are removed.
Result<std::vector<MountStatus>> ListMounts(const Library& library);

// The daemon's side: answers from a thread of its own until it is destroyed. `tell` is called from that thread.
class MountStatusServer {
 public:
  // Where the library cannot be written to there is no socket, and that is no error.
  static Result<std::unique_ptr<MountStatusServer>> Listen(const Library& library, std::function<MountStatus()> tell);
  ~MountStatusServer();

 private:
  MountStatusServer() = default;
  void Run();

  std::string path_;
  int listener_ = -1, stop_ = -1;
  std::function<MountStatus()> tell_;
  std::thread thread_;
};

}  // namespace mirage
