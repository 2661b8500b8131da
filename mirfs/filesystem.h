// A filesystem in inode numbers, knowing no FUSE: versions_fs (read-only) and branch_fs (an overlay above a head)
// implement it, fuse_ops.cc is the only file that speaks FUSE. Thread-safe: any method from any thread. Errors' codes
// go to the kernel as they are. Names are bytes, no '/', at most 255 for new ones (ENAMETOOLONG).
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "store/pieces.h"
#include "store/result.h"

namespace mirage {

using NodeId = uint64_t;            // the kernel's inode; 1 is the root
constexpr NodeId kRootNode = 1;
// A read of no more is what a client waits for; a longer one is mostly the kernel's reading ahead.
constexpr size_t kMostAwaitedBytes = 32 << 10;

struct NodeAttributes {
  NodeId node = 0;
  struct stat stat {};              // st_ino is what users see and need not equal `node`
  double entry_timeout_s = 0, attribute_timeout_s = 0;
};
struct DirectoryItem {
  std::string_view name;
  uint64_t next_offset = 0;         // hands back to ReadDirectory to go on behind this item
  NodeAttributes attributes;        // node 0: only st_ino and st_mode's type are set (plain readdir, "." and "..")
};
// Which members of `stat` SetAttributes takes.
struct AttributeChange {
  bool mode = false, uid = false, gid = false, size = false, atime = false, mtime = false, ctime = false;
  bool mtime_now = false, atime_now = false;
  struct stat stat {};
};
struct Caller { uint32_t uid = 0, gid = 0, umask = 0; };
using Handle = uint64_t;
constexpr Handle kHostFileHandle = 2;  // of an open file whose bytes the kernel reads and writes itself
struct OpenFile {
  Handle handle = 0;
  // A file of the host whose bytes are this one's, all of them, as long as the handle is open: the kernel may use it instead of
  // asking. Borrowed for the call. -1: there is none.
  int host_file = -1;
  bool keep_cache = true;            // pages that the kernel has of the file are good
};

class Filesystem {
 public:
  virtual ~Filesystem() = default;
  virtual bool read_only() const = 0;

  // Lookup, Make*, Create, Link and each readdirplus item with a node add one to the node's lookup count. A lookup that
  // misses gives ENOENT; negative_timeout_s says how long the kernel may remember that under this parent.
  virtual Result<NodeAttributes> Lookup(NodeId parent, std::string_view name) = 0;
  virtual double NegativeTimeout(NodeId parent) = 0;
  virtual void Forget(NodeId node, uint64_t count) = 0;
  virtual Result<NodeAttributes> GetAttributes(NodeId node) = 0;
  virtual Result<std::string> ReadLink(NodeId node) = 0;
  // Calls `add` for items from `offset` on until it returns false (buffer full; that item then holds no lookup). `handle` 0 for read-only mounts.
  virtual Status ReadDirectory(NodeId node, Handle handle, uint64_t offset, bool plus,
                               const std::function<bool(const DirectoryItem&)>& add) = 0;
  // Appends; short only at the end.
  virtual Status ReadPieces(NodeId node, Handle handle, uint64_t offset, size_t size, Pieces* out) = 0;
  Status Read(NodeId node, Handle handle, uint64_t offset, size_t size, std::string* out) {
    Pieces pieces;
    TRY(ReadPieces(node, handle, offset, size, &pieces));
    pieces.AppendTo(out);
    return {};
  }
  // lseek(2) with SEEK_DATA or SEEK_HOLE. What the kernel may have changed in its pages is no hole. ENXIO
  virtual Result<uint64_t> Seek(NodeId node, Handle handle, uint64_t offset, int whence) = 0;
  virtual Result<std::string> GetXattr(NodeId node, std::string_view name) = 0;   // ENODATA
  virtual Result<std::vector<std::string>> ListXattrs(NodeId node) = 0;
  virtual Result<struct statvfs> StatFilesystem() = 0;
  // Which library, version and path that is, for the log of what failed.
  virtual std::string Describe(NodeId node) { return fmt::format("inode {:x}", node); }

  // Writable ones only; EROFS otherwise.
  virtual Result<Handle> OpenDirectory(NodeId) { return Fail(EROFS, "read-only"); }
  virtual void ReleaseDirectory(NodeId, Handle) {}
  // `host_file`: one is wanted, if there can be one.
  virtual Result<OpenFile> Open(NodeId, int /*flags*/, bool /*host_file*/) { return Fail(EROFS, "read-only"); }
  virtual void HostFileRefused(NodeId, OpenFile*) {}  // the handle becomes one without
  virtual void Release(NodeId, Handle) {}
  virtual Status Sync(NodeId, Handle, bool /*data_only*/) { return {}; }  // directories too
  virtual Result<NodeAttributes> Create(NodeId /*parent*/, std::string_view, uint32_t /*mode*/, int /*flags*/, const Caller&,
                                        bool /*host_file*/, OpenFile*) { return Fail(EROFS, "read-only"); }
  virtual Result<size_t> Write(NodeId, Handle, uint64_t /*offset*/, std::string_view) { return Fail(EROFS, "read-only"); }
  virtual Result<NodeAttributes> SetAttributes(NodeId, const AttributeChange&) { return Fail(EROFS, "read-only"); }
  virtual Result<NodeAttributes> MakeNode(NodeId, std::string_view, uint32_t /*mode with type*/, uint64_t /*rdev*/, const Caller&) { return Fail(EROFS, "read-only"); }
  virtual Result<NodeAttributes> MakeSymlink(NodeId, std::string_view, std::string_view /*target*/, const Caller&) { return Fail(EROFS, "read-only"); }
  virtual Result<NodeAttributes> Link(NodeId, NodeId /*new parent*/, std::string_view) { return Fail(EROFS, "read-only"); }
  virtual Status Unlink(NodeId, std::string_view) { return Fail(EROFS, "read-only"); }
  virtual Status RemoveDirectory(NodeId, std::string_view) { return Fail(EROFS, "read-only"); }
  virtual Status Rename(NodeId, std::string_view, NodeId, std::string_view, unsigned /*RENAME_ flags*/) { return Fail(EROFS, "read-only"); }
  virtual Status SetXattr(NodeId, std::string_view, std::string_view, int /*flags*/) { return Fail(EROFS, "read-only"); }
  virtual Status RemoveXattr(NodeId, std::string_view) { return Fail(EROFS, "read-only"); }
  virtual Status Allocate(NodeId, Handle, int /*mode*/, uint64_t /*offset*/, uint64_t /*length*/) { return Fail(EROFS, "read-only"); }
};

}  // namespace mirage
