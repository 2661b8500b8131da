// What goes between the kernel and libfuse 3.14 that libfuse does not pass on: some bits of the handshake, flags of requests, and
// the kernel's passthrough of file bytes. fuse_ops.cc hands its functions to libfuse as the session's input and output, so
// each request and each reply comes by here.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>

#include "mirfs/filesystem.h"
#include "mirfs/thread_placement.h"

namespace mirage {

// One session's. The first five are set before it is served.
class FuseWire {
 public:
  bool read_only = true;
  bool want_passthrough = false;
  int device = -1;  // the session's /dev/fuse

  // Settled by the kernel's INIT request, before libfuse sees it.
  bool kills_privileges() const { return kills_privileges_; }  // FUSE_HANDLE_KILLPRIV_V2: clearing set-id bits is our work
  bool passthrough() const { return passthrough_; }            // never together with the kernel's write-back cache

  // libfuse's fuse_custom_io; `userdata` is made a FuseWire by the caller.
  ssize_t Read(int fd, void* buffer, size_t size);
  ssize_t Write(int fd, iovec* iov, int count);

  // Of a node all open handles must go through one backing file: the first call opens it (`host_file` is borrowed for the
  // call), others count. EPERM, ELOOP, ...: this kernel or this filesystem cannot; then this session asks no more.
  Status OpenBacking(NodeId node, int host_file);
  void CloseBacking(NodeId node);
  // The reply to open or create that this thread sends next is for that node's backing file.
  void ReplyWithBacking(NodeId node);

  // Of the request that this thread serves: libfuse reads and serves a request on one thread.
  static NodeId RequestNode();
  static bool KillsSetId();        // it asks for set-id bits to be cleared
  static void SetKillsSetId(bool kills);

 private:
  struct Backing {
    int32_t id = 0;
    unsigned handles = 0;
  };
  void SeeInit(const void* request, ssize_t size);
  ThreadPlacement placement_;           // of the threads that read requests
  std::atomic<uint64_t> init_unique_{0};  // of the INIT request that waits for its reply
  std::atomic<bool> kills_privileges_{false}, passthrough_{false};
  std::mutex mutex_;
  std::map<NodeId, Backing> backings_;    // guarded by mutex_
};

}  // namespace mirage
