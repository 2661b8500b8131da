#include "mirfs/fuse_ops.h"

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

#include "mirfs/fuse_wire.h"

namespace mirage {
namespace {

// Every request by libfuse's name; the counters' index.
enum Op {
  kLookup,
  kForget,
  kGetattr,
  kSetattr,
  kReadlink,
  kMknod,
  kMkdir,
  kUnlink,
  kRmdir,
  kSymlink,
  kRename,
  kLink,
  kOpen,
  kRead,
  kWrite,
  kRelease,
  kFsync,
  kOpendir,
  kReaddir,
  kReaddirplus,
  kReleasedir,
  kFsyncdir,
  kStatfs,
  kSetxattr,
  kGetxattr,
  kListxattr,
  kRemovexattr,
  kCreate,
  kIoctl,
  kFallocate,
  kLseek,
  kOpCount
};
constexpr std::array<const char*, kOpCount> kOpNames = {
    "lookup",   "forget",   "getattr",   "setattr",     "readlink",    "mknod",      "mkdir",    "unlink",
    "rmdir",    "symlink",  "rename",    "link",        "open",        "read",       "write",    "release",
    "fsync",    "opendir",   "readdir",     "readdirplus", "releasedir", "fsyncdir", "statfs",
    "setxattr", "getxattr", "listxattr", "removexattr", "create",      "ioctl",      "fallocate",   "lseek"};

constexpr size_t kMostParts = 512;  // of a reply; writev takes 1024

struct Context {
  Filesystem* filesystem = nullptr;
  bool default_permissions = false;
  std::array<std::atomic<uint64_t>, kOpCount> counts{};
  std::atomic<uint64_t> hand_overs{0};
  std::function<void(NodeId, uint64_t, size_t)> on_read;
  FuseWire wire;
};

Context& ContextOf(fuse_req_t req) { return *static_cast<Context*>(fuse_req_userdata(req)); }

// ENOSYS would switch an operation off for the whole mount, and the kernel takes no code above 511.
int ReplyCode(const Error& error) {
  if (error.code == ENOSYS) return EOPNOTSUPP;
  return error.code > 0 && error.code < 512 ? error.code : EIO;
}

void LogFailure(Filesystem& fs, std::string_view why) {
  const std::string where = fs.Describe(FuseWire::RequestNode());
  syslog(LOG_ERR, "%s: %.*s", where.c_str(), static_cast<int>(why.size()), why.data());
}

void ReplyError(fuse_req_t req, const Error& error) {
  // EAGAIN: a lock was waited for in vain, and the message says who holds it.
  const int code = ReplyCode(error);
  if (code == EIO || code == EAGAIN) LogFailure(*ContextOf(req).filesystem, error.message);
  fuse_reply_err(req, code);
}

void ReplyStatus(fuse_req_t req, const Status& status) {
  if (status) {
    fuse_reply_err(req, 0);
  } else {
    ReplyError(req, status.error());
  }
}

// Counts, and turns what is thrown (memory that ran out) into EIO: nothing may unwind through libfuse.
template <typename Body>
void Guard(Op op, fuse_req_t req, Body&& body) noexcept {
  Context& context = ContextOf(req);
  context.counts[op].fetch_add(1, std::memory_order_relaxed);
  try {
    body(*context.filesystem);
  } catch (const std::exception& e) {
    LogFailure(*context.filesystem, fmt::format("{}: {}", kOpNames[op], e.what()));
    fuse_reply_err(req, EIO);
  }
}

fuse_entry_param EntryParameters(const NodeAttributes& attributes) {
  fuse_entry_param entry{};
  entry.ino = attributes.node;
  entry.generation = 1;
  entry.attr = attributes.stat;
  entry.attr_timeout = attributes.attribute_timeout_s;
  entry.entry_timeout = attributes.entry_timeout_s;
  return entry;
}

// An entry the kernel did not take (the caller was interrupted) holds no lookup.
void ReplyEntry(Filesystem& fs, fuse_req_t req, const Result<NodeAttributes>& attributes) {
  if (!attributes) return ReplyError(req, attributes.error());
  const fuse_entry_param entry = EntryParameters(*attributes);
  if (fuse_reply_entry(req, &entry) != 0) fs.Forget(attributes->node, 1);
}

Caller CallerOf(fuse_req_t req) {
  const fuse_ctx* context = fuse_req_ctx(req);
  return {.uid = context->uid, .gid = context->gid, .umask = context->umask};
}

void Init(void* userdata, fuse_conn_info* conn) {
  const Context& context = *static_cast<Context*>(userdata);
  auto want = [conn](unsigned capability, bool on) {
    if (on) {
      conn->want |= conn->capable & capability;
    } else {
      conn->want &= ~capability;
    }
  };
  // Replies are small or come from a buffer: splicing them costs more than it saves.
  want(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE, false);
  // It wins over everything that keeps pages: each read would ask for attributes first. No one else changes our files.
  want(FUSE_CAP_AUTO_INVAL_DATA, false);
  want(FUSE_CAP_READDIRPLUS_AUTO, false);
  want(FUSE_CAP_READDIRPLUS | FUSE_CAP_ASYNC_READ | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_PARALLEL_DIROPS, true);
  const bool read_only = context.wire.read_only;
  want(FUSE_CAP_NO_OPEN_SUPPORT | FUSE_CAP_NO_OPENDIR_SUPPORT, read_only);
  want(FUSE_CAP_DONT_MASK, !read_only);
  want(FUSE_CAP_WRITEBACK_CACHE, !read_only && !context.wire.passthrough());  // the kernel has one or the other
  want(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_HANDLE_KILLPRIV, false);  // O_TRUNC comes as a SETATTR: one road for both
  want(FUSE_CAP_POSIX_ACL, context.default_permissions);     // in the kernel it implies the checks
  want(FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS, false);  // the kernel keeps them: one mount, one machine
  conn->max_background = 64;
  conn->congestion_threshold = 48;
  conn->time_gran = 1;
}

void Lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Guard(kLookup, req, [&](Filesystem& fs) {
    const auto attributes = fs.Lookup(parent, name);
    if (attributes || attributes.error().code != ENOENT) return ReplyEntry(fs, req, attributes);
    fuse_entry_param missing{};
    missing.entry_timeout = fs.NegativeTimeout(parent);
    if (missing.entry_timeout > 0) {
      fuse_reply_entry(req, &missing);
    } else {
      fuse_reply_err(req, ENOENT);
    }
  });
}

void Forget(fuse_req_t req, fuse_ino_t node, uint64_t count) {
  Context& context = ContextOf(req);
  context.counts[kForget].fetch_add(1, std::memory_order_relaxed);
  context.filesystem->Forget(node, count);
  fuse_reply_none(req);
}

void ForgetMulti(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  Context& context = ContextOf(req);
  context.counts[kForget].fetch_add(count, std::memory_order_relaxed);
  for (size_t i = 0; i < count; ++i) context.filesystem->Forget(forgets[i].ino, forgets[i].nlookup);
  fuse_reply_none(req);
}

void ReplyAttributes(fuse_req_t req, const Result<NodeAttributes>& attributes) {
  if (!attributes) return ReplyError(req, attributes.error());
  fuse_reply_attr(req, &attributes->stat, attributes->attribute_timeout_s);
}

// What FUSE_HANDLE_KILLPRIV_V2 leaves to us when a file is written, truncated or given away: its capabilities go, and
// its set-id bits where the kernel says so, set-gid only with the group's execute bit (it means locking else).
Status KillPrivileges(fuse_req_t req, Filesystem& fs, NodeId node) {
  if (!ContextOf(req).wire.kills_privileges()) return {};
  if (auto removed = fs.RemoveXattr(node, "security.capability"); !removed && removed.error().code != ENODATA) {
    return removed;
  }
  if (!FuseWire::KillsSetId()) return {};
  ASSIGN_OR_RETURN(const auto attributes, fs.GetAttributes(node));
  AttributeChange change;
  change.mode = true;
  change.stat.st_mode = attributes.stat.st_mode & ~static_cast<mode_t>(S_ISUID);
  if (change.stat.st_mode & S_IXGRP) change.stat.st_mode &= ~static_cast<mode_t>(S_ISGID);
  if (change.stat.st_mode == attributes.stat.st_mode) return {};
  return fs.SetAttributes(node, change).map([](const NodeAttributes&) {});
}

void Getattr(fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
  Guard(kGetattr, req, [&](Filesystem& fs) { ReplyAttributes(req, fs.GetAttributes(node)); });
}

void Setattr(fuse_req_t req, fuse_ino_t node, struct stat* attr, int to_set, fuse_file_info*) {
  Guard(kSetattr, req, [&](Filesystem& fs) {
    if ((to_set & (FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0) {
      if (auto killed = KillPrivileges(req, fs, node); !killed) return ReplyError(req, killed.error());
    }
    AttributeChange change;
    change.mode = to_set & FUSE_SET_ATTR_MODE;
    change.uid = to_set & FUSE_SET_ATTR_UID;
    change.gid = to_set & FUSE_SET_ATTR_GID;
    change.size = to_set & FUSE_SET_ATTR_SIZE;
    change.atime_now = to_set & FUSE_SET_ATTR_ATIME_NOW;
    change.mtime_now = to_set & FUSE_SET_ATTR_MTIME_NOW;
    change.atime = (to_set & FUSE_SET_ATTR_ATIME) && !change.atime_now;
    change.mtime = (to_set & FUSE_SET_ATTR_MTIME) && !change.mtime_now;
    change.ctime = to_set & FUSE_SET_ATTR_CTIME;
    change.stat = *attr;
    ReplyAttributes(req, fs.SetAttributes(node, change));
  });
}

void Readlink(fuse_req_t req, fuse_ino_t node) {
  Guard(kReadlink, req, [&](Filesystem& fs) {
    const auto target = fs.ReadLink(node);
    if (!target) return ReplyError(req, target.error());
    fuse_reply_readlink(req, target->c_str());
  });
}

void Mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  Guard(kMknod, req,
        [&](Filesystem& fs) { ReplyEntry(fs, req, fs.MakeNode(parent, name, mode, rdev, CallerOf(req))); });
}

void Mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  Guard(kMkdir, req, [&](Filesystem& fs) {
    ReplyEntry(fs, req, fs.MakeNode(parent, name, (mode & 07777) | S_IFDIR, 0, CallerOf(req)));
  });
}

void Unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Guard(kUnlink, req, [&](Filesystem& fs) { ReplyStatus(req, fs.Unlink(parent, name)); });
}

void Rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Guard(kRmdir, req, [&](Filesystem& fs) { ReplyStatus(req, fs.RemoveDirectory(parent, name)); });
}

void Symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  Guard(kSymlink, req,
        [&](Filesystem& fs) { ReplyEntry(fs, req, fs.MakeSymlink(parent, name, target, CallerOf(req))); });
}

void Rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent, const char* new_name,
            unsigned flags) {
  Guard(kRename, req, [&](Filesystem& fs) { ReplyStatus(req, fs.Rename(parent, name, new_parent, new_name, flags)); });
}

void Link(fuse_req_t req, fuse_ino_t node, fuse_ino_t new_parent, const char* new_name) {
  Guard(kLink, req, [&](Filesystem& fs) { ReplyEntry(fs, req, fs.Link(node, new_parent, new_name)); });
}

// The kernel takes the host's file, or the daemon goes on reading and writing it.
void UseBacking(fuse_req_t req, NodeId node, OpenFile& opened, fuse_file_info* info) {
  Context& context = ContextOf(req);
  if (opened.host_file >= 0) {
    if (context.wire.OpenBacking(node, opened.host_file)) {
      context.wire.ReplyWithBacking(node);
    } else {
      context.filesystem->HostFileRefused(node, &opened);
    }
  }
  info->fh = opened.handle;
  info->keep_cache = opened.keep_cache;
}
void ReleaseHandle(fuse_req_t req, NodeId node, Handle handle) {
  Context& context = ContextOf(req);
  if (handle == kHostFileHandle) context.wire.CloseBacking(node);
  context.filesystem->Release(node, handle);
}

void Open(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
  Guard(kOpen, req, [&](Filesystem& fs) {
    if (fs.read_only()) {
      fuse_reply_err(req, ENOSYS);
      return;
    }
    auto opened = fs.Open(node, info->flags, ContextOf(req).wire.passthrough());
    if (!opened) return ReplyError(req, opened.error());
    UseBacking(req, node, *opened, info);
    if (fuse_reply_open(req, info) != 0) ReleaseHandle(req, node, info->fh);
  });
}

void Create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
  Guard(kCreate, req, [&](Filesystem& fs) {
    OpenFile opened;
    const auto attributes =
        fs.Create(parent, name, mode, info->flags, CallerOf(req), ContextOf(req).wire.passthrough(), &opened);
    if (!attributes) return ReplyError(req, attributes.error());
    UseBacking(req, attributes->node, opened, info);
    const fuse_entry_param entry = EntryParameters(*attributes);
    if (fuse_reply_create(req, &entry, info) != 0) {
      ReleaseHandle(req, attributes->node, info->fh);
      fs.Forget(attributes->node, 1);
    }
  });
}

void ReplyPieces(fuse_req_t req, const Pieces& pieces) {
  thread_local std::vector<iovec> parts;  // keeps its memory between requests, as does the next
  if (pieces.views().size() >= kMostParts) {
    thread_local std::string whole;
    whole.clear();
    pieces.AppendTo(&whole);
    fuse_reply_buf(req, whole.data(), whole.size());
    return;
  }
  parts.clear();
  for (const std::string_view view : pieces.views()) {
    parts.push_back({.iov_base = const_cast<char*>(view.data()), .iov_len = view.size()});  // it is only read
  }
  fuse_reply_iov(req, parts.data(), static_cast<int>(parts.size()));
}

void Read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info* info) {
  Guard(kRead, req, [&](Filesystem& fs) {
    Pieces pieces;
    const Status status = fs.ReadPieces(node, info ? info->fh : 0, static_cast<uint64_t>(offset), size, &pieces);
    if (!status) return ReplyError(req, status.error());
    Context& context = ContextOf(req);
    ReplyPieces(req, pieces);
    if (context.on_read) context.on_read(node, static_cast<uint64_t>(offset), size);
  });
}

void Write(fuse_req_t req, fuse_ino_t node, const char* bytes, size_t size, off_t offset, fuse_file_info* info) {
  Guard(kWrite, req, [&](Filesystem& fs) {
    if (auto killed = KillPrivileges(req, fs, node); !killed) return ReplyError(req, killed.error());
    const auto written = fs.Write(node, info->fh, static_cast<uint64_t>(offset), {bytes, size});
    if (!written) return ReplyError(req, written.error());
    fuse_reply_write(req, *written);
  });
}

void Release(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
  Guard(kRelease, req, [&](Filesystem&) {
    ReleaseHandle(req, node, info->fh);
    fuse_reply_err(req, 0);
  });
}

void Fsync(fuse_req_t req, fuse_ino_t node, int data_only, fuse_file_info* info) {
  Guard(kFsync, req, [&](Filesystem& fs) { ReplyStatus(req, fs.Sync(node, info->fh, data_only != 0)); });
}

void Opendir(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
  Guard(kOpendir, req, [&](Filesystem& fs) {
    if (fs.read_only()) {
      fuse_reply_err(req, ENOSYS);
      return;
    }
    const auto handle = fs.OpenDirectory(node);
    if (!handle) return ReplyError(req, handle.error());
    info->fh = *handle;
    if (fuse_reply_open(req, info) != 0) fs.ReleaseDirectory(node, *handle);
  });
}

void ReadEntries(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, const fuse_file_info* info, bool plus) {
  Guard(plus ? kReaddirplus : kReaddir, req, [&](Filesystem& fs) {
    thread_local std::vector<char> buffer;
    if (buffer.size() < size) buffer.resize(size);
    std::vector<NodeId> given;  // lookups to take back when the kernel did not take the reply
    size_t used = 0;
    std::string name;  // libfuse wants a terminated one
    const Status status = fs.ReadDirectory(
        node, info ? info->fh : 0, static_cast<uint64_t>(offset), plus, [&](const DirectoryItem& item) {
          name.assign(item.name);
          size_t needed = 0;
          if (plus) {
            const fuse_entry_param entry = EntryParameters(item.attributes);
            needed = fuse_add_direntry_plus(req, buffer.data() + used, size - used, name.c_str(), &entry,
                                            static_cast<off_t>(item.next_offset));
          } else {
            needed = fuse_add_direntry(req, buffer.data() + used, size - used, name.c_str(), &item.attributes.stat,
                                       static_cast<off_t>(item.next_offset));
          }
          if (needed > size - used) return false;
          used += needed;
          if (plus && item.attributes.node != 0) given.push_back(item.attributes.node);
          return true;
        });
    if (!status && used == 0) return ReplyError(req, status.error());  // else the next call meets the error
    if (fuse_reply_buf(req, buffer.data(), used) != 0) {
      for (const NodeId item : given) fs.Forget(item, 1);
    }
  });
}

void Readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info* info) {
  ReadEntries(req, node, size, offset, info, false);
}
void Readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info* info) {
  ReadEntries(req, node, size, offset, info, true);
}

void Releasedir(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
  Guard(kReleasedir, req, [&](Filesystem& fs) {
    fs.ReleaseDirectory(node, info->fh);
    fuse_reply_err(req, 0);
  });
}

void Fsyncdir(fuse_req_t req, fuse_ino_t node, int data_only, fuse_file_info* info) {
  Guard(kFsyncdir, req, [&](Filesystem& fs) {
    fs.read_only() ? ReplyStatus(req, {}) : ReplyStatus(req, fs.Sync(node, info->fh, data_only != 0));
  });
}

void Statfs(fuse_req_t req, fuse_ino_t) {
  Guard(kStatfs, req, [&](Filesystem& fs) {
    const auto result = fs.StatFilesystem();
    if (!result) return ReplyError(req, result.error());
    fuse_reply_statfs(req, &*result);
  });
}

void Setxattr(fuse_req_t req, fuse_ino_t node, const char* name, const char* value, size_t size, int flags) {
  Guard(kSetxattr, req, [&](Filesystem& fs) { ReplyStatus(req, fs.SetXattr(node, name, {value, size}, flags)); });
}

void ReplySized(fuse_req_t req, std::string_view bytes, size_t size) {
  if (size == 0) {
    fuse_reply_xattr(req, bytes.size());
  } else if (bytes.size() > size) {
    fuse_reply_err(req, ERANGE);
  } else {
    fuse_reply_buf(req, bytes.data(), bytes.size());
  }
}

void Getxattr(fuse_req_t req, fuse_ino_t node, const char* name, size_t size) {
  Guard(kGetxattr, req, [&](Filesystem& fs) {
    const auto value = fs.GetXattr(node, name);
    if (!value) return ReplyError(req, value.error());
    ReplySized(req, *value, size);
  });
}

void Listxattr(fuse_req_t req, fuse_ino_t node, size_t size) {
  Guard(kListxattr, req, [&](Filesystem& fs) {
    const auto names = fs.ListXattrs(node);
    if (!names) return ReplyError(req, names.error());
    std::string list;
    for (const std::string& name : *names) list.append(name).push_back('\0');
    ReplySized(req, list, size);
  });
}

void Removexattr(fuse_req_t req, fuse_ino_t node, const char* name) {
  Guard(kRemovexattr, req, [&](Filesystem& fs) { ReplyStatus(req, fs.RemoveXattr(node, name)); });
}

void Ioctl(fuse_req_t req, fuse_ino_t, unsigned, void*, fuse_file_info*, unsigned, const void*, size_t, size_t) {
  Guard(kIoctl, req, [&](Filesystem&) { fuse_reply_err(req, ENOTTY); });
}

void Fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t offset, off_t length, fuse_file_info* info) {
  Guard(kFallocate, req, [&](Filesystem& fs) {
    FuseWire::SetKillsSetId(fuse_req_ctx(req)->uid != 0);  // the request has no such flag; whoever has the right is root
    if (auto killed = KillPrivileges(req, fs, node); !killed) return ReplyError(req, killed.error());
    ReplyStatus(req, fs.Allocate(node, info->fh, mode, static_cast<uint64_t>(offset), static_cast<uint64_t>(length)));
  });
}

// Only for SEEK_DATA and SEEK_HOLE. Behind a write-back cache the kernel alone knows how long a file is.
void Lseek(fuse_req_t req, fuse_ino_t node, off_t offset, int whence, fuse_file_info* info) {
  Guard(kLseek, req, [&](Filesystem& fs) {
    if (!fs.read_only() && !ContextOf(req).wire.passthrough()) {
      fuse_reply_err(req, ENOSYS);  // it asks no more, and takes a file for one piece of data
      return;
    }
    if (offset < 0) {
      fuse_reply_err(req, ENXIO);
      return;
    }
    const auto found = fs.Seek(node, info ? info->fh : 0, static_cast<uint64_t>(offset), whence);
    if (!found) return ReplyError(req, found.error());
    fuse_reply_lseek(req, static_cast<off_t>(*found));
  });
}

// No access, copy_file_range, getlk, flock: the kernel does them itself. No flush: before it would send one, it
// writes back what a closed file holds, and it tells close() what failed; a request less for every file that is closed.
fuse_lowlevel_ops Operations() {
  fuse_lowlevel_ops ops{};
  ops.init = Init;
  ops.lookup = Lookup;
  ops.forget = Forget;
  ops.forget_multi = ForgetMulti;
  ops.getattr = Getattr;
  ops.setattr = Setattr;
  ops.readlink = Readlink;
  ops.mknod = Mknod;
  ops.mkdir = Mkdir;
  ops.unlink = Unlink;
  ops.rmdir = Rmdir;
  ops.symlink = Symlink;
  ops.rename = Rename;
  ops.link = Link;
  ops.open = Open;
  ops.create = Create;
  ops.read = Read;
  ops.write = Write;
  ops.release = Release;
  ops.fsync = Fsync;
  ops.opendir = Opendir;
  ops.readdir = Readdir;
  ops.readdirplus = Readdirplus;
  ops.releasedir = Releasedir;
  ops.fsyncdir = Fsyncdir;
  ops.statfs = Statfs;
  ops.setxattr = Setxattr;
  ops.getxattr = Getxattr;
  ops.listxattr = Listxattr;
  ops.removexattr = Removexattr;
  ops.ioctl = Ioctl;
  ops.fallocate = Fallocate;
  ops.lseek = Lseek;
  return ops;
}

ssize_t ReadRequest(int fd, void* buffer, size_t size, void* userdata) {
  return static_cast<Context*>(userdata)->wire.Read(fd, buffer, size);
}
ssize_t WriteReply(int fd, iovec* iov, int count, void* userdata) {
  return static_cast<Context*>(userdata)->wire.Write(fd, iov, count);
}

// What libfuse, and the fusermount3 it runs, say goes into the error instead of past it.
class CapturedStderr {
 public:
  CapturedStderr() : memory_(memfd_create("stderr", MFD_CLOEXEC)), saved_(fcntl(2, F_DUPFD_CLOEXEC, 3)) {
    if (memory_ >= 0 && saved_ >= 0) dup2(memory_, 2);
  }
  ~CapturedStderr() { Restore(); }
  std::string Restore() {
    std::string text;
    if (memory_ >= 0 && saved_ >= 0) {
      dup2(saved_, 2);
      text.resize(512);
      text.resize(static_cast<size_t>(std::max<ssize_t>(0, pread(memory_, text.data(), text.size(), 0))));
    }
    if (memory_ >= 0) close(memory_);
    if (saved_ >= 0) close(saved_);
    memory_ = saved_ = -1;
    if (const size_t end = text.find('\n'); end != text.npos) text.resize(end);
    for (std::string_view prefix : {"fusermount3: ", "fuse: "}) {
      if (text.starts_with(prefix)) text.erase(0, prefix.size());
    }
    return text;
  }

 private:
  int memory_, saved_;
};

std::string EscapeOption(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == ',' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

}  // namespace

struct FuseSession::Impl {
  Context context;
  unsigned max_threads = 0;
  fuse_session* session = nullptr;

  ~Impl() {
    if (!session) return;
    fuse_session_unmount(session);
    fuse_session_destroy(session);
  }
};

FuseSession::FuseSession(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FuseSession::~FuseSession() = default;

Result<std::unique_ptr<FuseSession>> FuseSession::Mount(Filesystem& filesystem, const std::string& mountpoint,
                                                        const FuseOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->context.filesystem = &filesystem;
  impl->context.wire.read_only = filesystem.read_only();
  impl->context.wire.want_passthrough = options.passthrough;
  impl->context.default_permissions = options.default_permissions;
  impl->max_threads = options.max_threads;

  std::string mount_options = "subtype=mirfs,fsname=" + EscapeOption(options.source);
  if (filesystem.read_only()) mount_options += ",ro";
  if (options.default_permissions) mount_options += ",default_permissions";
  if (!options.mount_options.empty()) mount_options += "," + options.mount_options;

  CapturedStderr said;
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  fuse_opt_add_arg(&args, "mirfs");
  fuse_opt_add_arg(&args, "-o");
  fuse_opt_add_arg(&args, mount_options.c_str());
  const fuse_lowlevel_ops ops = Operations();
  fuse_session* session = fuse_session_new(&args, &ops, sizeof ops, &impl->context);
  fuse_opt_free_args(&args);
  if (!session) return Fail(EINVAL, "mount on {}: {}", mountpoint, said.Restore());
  errno = 0;
  if (fuse_session_mount(session, mountpoint.c_str()) != 0) {
    const int code = errno;
    fuse_session_destroy(session);
    std::string why = said.Restore();
    return Fail(code > 0 ? code : EIO, "mount on {}: {}", mountpoint, why.empty() ? std::strerror(code) : why);
  }
  impl->session = session;
  impl->context.wire.device = fuse_session_fd(session);
  const fuse_custom_io io{.writev = WriteReply, .read = ReadRequest, .splice_receive = nullptr, .splice_send = nullptr};
  if (fuse_session_custom_io(session, &io, fuse_session_fd(session)) != 0) {
    return Fail(EIO, "mount on {}: {}", mountpoint, said.Restore());
  }
  return std::unique_ptr<FuseSession>(new FuseSession(std::move(impl)));
}

Status FuseSession::Serve() {
  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(config, 0);
  fuse_loop_cfg_set_max_threads(config, impl_->max_threads);
  const int result = fuse_session_loop_mt(impl_->session, config);
  fuse_loop_cfg_destroy(config);
  // The last unmount may come while the kernel hands out a request: that read gives ECONNABORTED, not ENODEV. Whether the
  // connection was cut instead, the mount table tells.
  if (result < 0 && result != -ECONNABORTED) return FailErrno(-result, "serve the mount");
  return {};
}

void FuseSession::InvalidateEntry(NodeId parent, std::string_view name) {
  fuse_lowlevel_notify_inval_entry(impl_->session, parent, name.data(), name.size());  // ENOENT: not cached
}

void FuseSession::InvalidateInode(NodeId node) { fuse_lowlevel_notify_inval_inode(impl_->session, node, 0, 0); }

void FuseSession::StorePages(NodeId node, uint64_t offset, std::string_view bytes) {
  if (bytes.empty()) return;
  fuse_bufvec buffer = FUSE_BUFVEC_INIT(bytes.size());
  buffer.buf[0].mem = const_cast<char*>(bytes.data());  // libfuse only reads it
  if (fuse_lowlevel_notify_store(impl_->session, node, static_cast<off_t>(offset), &buffer,
                                 static_cast<fuse_buf_copy_flags>(0)) == 0) {
    impl_->context.hand_overs.fetch_add(1, std::memory_order_relaxed);
  }
}

void FuseSession::OnRead(std::function<void(NodeId, uint64_t, size_t)> hear) { impl_->context.on_read = std::move(hear); }

uint64_t FuseSession::hand_overs() const { return impl_->context.hand_overs; }

std::map<std::string, uint64_t> FuseSession::Requests() const {
  std::map<std::string, uint64_t> result;
  for (size_t op = 0; op < kOpCount; ++op) result[kOpNames[op]] = impl_->context.counts[op];
  return result;
}

}  // namespace mirage
