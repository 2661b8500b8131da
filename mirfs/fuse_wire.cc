#include "mirfs/fuse_wire.h"

#include <linux/fuse.h>

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

namespace mirage {
namespace {

// From version 7.40 of the protocol (linux/fuse.h of kernel 6.9), which is newer than Debian 12's headers.
constexpr uint32_t kPassthroughFlag2 = 1U << (37 - 32);  // FUSE_PASSTHROUGH, in flags2
constexpr uint32_t kFopenPassthrough = 1U << 7;
constexpr uint32_t kFopenKeepCache = FOPEN_KEEP_CACHE;
struct BackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
constexpr unsigned long kBackingOpen = _IOW(229, 1, BackingMap), kBackingClose = _IOW(229, 2, uint32_t);
constexpr size_t kStackDepthOffset = offsetof(fuse_init_out, flags2) + sizeof(uint32_t);

thread_local NodeId request_node = 0;
thread_local bool kill_set_id = false;
thread_local int32_t reply_backing = 0;

// What the request behind `header` holds at its beginning, if it is long enough.
template <typename Body>
Body BodyOf(const void* request, ssize_t size) {
  Body body{};
  if (size >= static_cast<ssize_t>(sizeof(fuse_in_header) + sizeof body)) {
    std::memcpy(&body, static_cast<const char*>(request) + sizeof(fuse_in_header), sizeof body);
  }
  return body;
}

// Whom a request keeps at work. Mostly the client does nothing until it is answered. Not so with bytes that are read ahead or
// written behind, which come in larger pieces; and what is a note, or a few bytes that may be either's, says nothing.
enum class Work { kAwaited, kShared, kUnknown };

Work WorkOf(uint32_t opcode, const void* request, ssize_t size) {
  switch (opcode) {
    case FUSE_READ:
      return BodyOf<fuse_read_in>(request, size).size <= kMostAwaitedBytes ? Work::kAwaited : Work::kShared;
    case FUSE_WRITE:
      return BodyOf<fuse_write_in>(request, size).size <= kMostAwaitedBytes ? Work::kUnknown : Work::kShared;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INIT:
      return Work::kUnknown;
    default:
      return Work::kAwaited;
  }
}

}  // namespace

NodeId FuseWire::RequestNode() { return request_node; }
bool FuseWire::KillsSetId() { return kill_set_id; }
void FuseWire::SetKillsSetId(bool kills) { kill_set_id = kills; }

// Without PARALLEL_DIROPS, lookups in one directory go one by one; without HANDLE_KILLPRIV_V2, each write(2) asks for
// security.capability. libfuse before 3.17 leaves both out of its reply.
void FuseWire::SeeInit(const void* request, ssize_t size) {
  const auto init = BodyOf<fuse_init_in>(request, size);
  kills_privileges_ = !read_only && (init.flags & FUSE_HANDLE_KILLPRIV_V2) != 0;
  passthrough_ = !read_only && want_passthrough && (init.flags & FUSE_INIT_EXT) != 0 && (init.flags2 & kPassthroughFlag2) != 0;
}

ssize_t FuseWire::Read(int fd, void* buffer, size_t size) {
  placement_.Serves();
  const ssize_t got = read(fd, buffer, size);
  if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) return got;
  fuse_in_header header;
  std::memcpy(&header, buffer, sizeof header);
  request_node = header.nodeid;
  kill_set_id = false;
  reply_backing = 0;
  switch (header.opcode) {
    case FUSE_INIT:
      init_unique_ = header.unique;
      SeeInit(buffer, got);
      break;
    case FUSE_WRITE:
      kill_set_id = (BodyOf<fuse_write_in>(buffer, got).write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
      break;
    case FUSE_SETATTR:
      kill_set_id = (BodyOf<fuse_setattr_in>(buffer, got).valid & FATTR_KILL_SUIDGID) != 0;
      break;
    default:
      break;
  }
  const Work work = WorkOf(header.opcode, buffer, got);
  if (work == Work::kAwaited) placement_.ClientWaits(header.pid);
  if (work == Work::kShared) placement_.Other();
  return got;
}

ssize_t FuseWire::Write(int fd, iovec* iov, int count) {
  fuse_out_header header;
  if (count == 2 && (reply_backing != 0 || init_unique_.load(std::memory_order_relaxed) != 0)) {
    std::memcpy(&header, iov[0].iov_base, sizeof header);
    auto* body = static_cast<char*>(iov[1].iov_base);
    if (header.error == 0 && header.unique == init_unique_.load(std::memory_order_relaxed)) {
      fuse_init_out reply{};
      const size_t size = std::min(sizeof reply, iov[1].iov_len);
      std::memcpy(&reply, body, size);
      reply.flags |= FUSE_PARALLEL_DIROPS | (kills_privileges_ ? FUSE_HANDLE_KILLPRIV_V2 : 0U);
      if (passthrough_) {
        reply.flags |= FUSE_INIT_EXT;
        reply.flags2 |= kPassthroughFlag2;
        const uint32_t depth = 1;  // a backing file may not lie on a stacked filesystem itself
        std::memcpy(reinterpret_cast<char*>(&reply) + kStackDepthOffset, &depth, sizeof depth);
      }
      std::memcpy(body, &reply, size);
      init_unique_ = 0;
    } else if (header.error == 0 && reply_backing != 0 && iov[1].iov_len >= sizeof(fuse_open_out)) {
      // Open's reply is this, and create's ends with it; the id lies where older headers have padding.
      fuse_open_out reply;
      char* at = body + iov[1].iov_len - sizeof reply;
      std::memcpy(&reply, at, sizeof reply);
      reply.open_flags = (reply.open_flags & ~kFopenKeepCache) | kFopenPassthrough;
      std::memcpy(&reply.padding, &reply_backing, sizeof reply_backing);
      std::memcpy(at, &reply, sizeof reply);
      reply_backing = 0;
    }
  }
  return writev(fd, iov, count);
}

Status FuseWire::OpenBacking(NodeId node, int host_file) {
  const std::lock_guard lock(mutex_);
  Backing& backing = backings_[node];
  if (backing.handles == 0) {
    BackingMap map{.fd = host_file, .flags = 0, .padding = 0};
    backing.id = ioctl(device, kBackingOpen, &map);
    if (backing.id <= 0) {
      const int code = errno;
      backings_.erase(node);
      passthrough_ = false;
      return FailErrno(code, "passthrough");
    }
  }
  ++backing.handles;
  return {};
}

void FuseWire::CloseBacking(NodeId node) {
  const std::lock_guard lock(mutex_);
  const auto found = backings_.find(node);
  if (found == backings_.end() || --found->second.handles > 0) return;
  const auto id = static_cast<uint32_t>(found->second.id);
  backings_.erase(found);
  (void)ioctl(device, kBackingClose, &id);  // open handles keep the file itself
}

void FuseWire::ReplyWithBacking(NodeId node) {
  const std::lock_guard lock(mutex_);
  const auto found = backings_.find(node);
  reply_backing = found == backings_.end() ? 0 : found->second.id;
}

}  // namespace mirage
