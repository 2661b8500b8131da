// What the kernel is given unasked: a file's pages. fuse_ops implements it, scan_ahead calls it. Never called from a thread
// that serves requests: the kernel may have locked the page until a request for it is answered.
#pragma once

#include <string_view>

#include "mirfs/filesystem.h"

namespace mirage {

class PageStore {
 public:
  virtual ~PageStore() = default;
  // A file from its beginning to its end. Nothing happens if the kernel has let go of it.
  virtual void StoreFile(NodeId node, std::string_view bytes) = 0;
};

}  // namespace mirage
