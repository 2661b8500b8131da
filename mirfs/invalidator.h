// What the kernel is told to forget. fuse_ops implements it, the watcher calls it. Never called with a lock held or
// from a thread that serves requests: the kernel may be holding the directory's own lock while it waits for a reply.
#pragma once

#include <string_view>

#include "mirfs/filesystem.h"

namespace mirage {

class Invalidator {
 public:
  virtual ~Invalidator() = default;
  virtual void InvalidateEntry(NodeId parent, std::string_view name) = 0;  // one name, also one that was missing
  virtual void InvalidateInode(NodeId node) = 0;                           // attributes, and a directory's listing
};

}  // namespace mirage
