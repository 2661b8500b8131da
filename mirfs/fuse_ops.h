// A mounted session: decodes the kernel's requests, calls a Filesystem, replies. fuse_ops.cc is the only file that
// includes FUSE's headers (libfuse 3.14, low-level API).
//
// Read-only: `open` and `opendir` are answered once with ENOSYS, so that the kernel sends no more of them and keeps
// pages and listings; readdirplus always. Writable: passthrough or the kernel's write-back
// cache, handles, POSIX ACLs with kernel checks.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "mirfs/filesystem.h"
#include "mirfs/invalidator.h"
#include "mirfs/page_store.h"

namespace mirage {

struct FuseOptions {
  std::string source;                // what mountinfo shows as the device: the library's path
  std::string mount_options;         // further ones for the kernel, comma-separated: "allow_other,noatime"
  bool default_permissions = false;  // the kernel checks modes, and ACLs
  unsigned max_threads = 16;
  // Writable mounts: the kernel reads and writes a file's bytes itself where the host has them all in one file (Linux 6.9; needs
  // CAP_SYS_ADMIN), in place of its write-back cache. Where it cannot, the daemon does both.
  bool passthrough = false;
};

class FuseSession final : public Invalidator, public PageStore {
 public:
  // Mounts. The directory must exist. Errors carry what libfuse or fusermount3 said. The filesystem must outlive the
  // session.
  static Result<std::unique_ptr<FuseSession>> Mount(Filesystem& filesystem, const std::string& mountpoint,
                                                    const FuseOptions& options);
  ~FuseSession() override;  // unmounts what is still mounted

  // `hear` is told of every read that was answered, from any serving thread; it must not throw. To be called before Serve.
  void OnRead(std::function<void(NodeId node, uint64_t offset, size_t size)> hear);
  // Serves requests on several threads until the filesystem is unmounted everywhere. Call it once. Signals are the
  // caller's business: block them before, in all threads.
  Status Serve();

  void InvalidateEntry(NodeId parent, std::string_view name) override;
  void InvalidateInode(NodeId node) override;
  void StorePages(NodeId node, uint64_t offset, std::string_view bytes) override;

  // Requests received so far, by the kernel's name for them in lower case: {"lookup", 3}.
  std::map<std::string, uint64_t> Requests() const;
  uint64_t hand_overs() const;  // how often the kernel was given pages unasked

 private:
  struct Impl;
  explicit FuseSession(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
