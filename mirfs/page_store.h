// What the kernel is given unasked: a file's pages. fuse_ops implements it, scan_ahead and read_around call it. Never called from a thread
// that serves requests: the kernel may have locked the page until a request for it is answered.
#pragma once

#include <string_view>

#include "mirfs/filesystem.h"

namespace mirage {

class PageStore {
 public:
  virtual ~PageStore() = default;
  // `offset` is a multiple of the page size, and the bytes end at one, or with the file: never behind it. Nothing happens if
  // the kernel has let go of it.
  virtual void StorePages(NodeId node, uint64_t offset, std::string_view bytes) = 0;
};

}  // namespace mirage
