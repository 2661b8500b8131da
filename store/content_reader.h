// Random access to a content's bytes by its id. Thread-safe; decoded segment lists are cached by bytes.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "store/chunk_store.h"
#include "store/object.h"
#include "store/pieces.h"

namespace mirage {

// What ContentReader needs of a snapshot or a transaction.
class ChunkIndex : public ObjectReader {
 public:
  virtual Result<std::optional<Location>> FindChunk(const ObjectId& id) const = 0;
};

class ContentReader {
 public:
  ContentReader(const ChunkIndex& index, const ChunkStore& chunks, size_t list_cache_bytes = 16 << 20);
  ~ContentReader();
  // Reads up to `length` bytes at `offset` of a content of `size` bytes (the entry's size, which is checked against the
  // list: EIO when they disagree). Appends to *out; short only at the end. Holes read as zeros. ENOENT: the index has
  // no such content. A pack that is gone is looked for again, for a collection may have moved the chunk and the index have
  // been refreshed meanwhile; EIO if the index still names it. After an error *out is as it was.
  Status Read(const ObjectId& content, uint64_t size, uint64_t offset, size_t length, Pieces* out) const;
  Status Read(const ObjectId& content, uint64_t size, uint64_t offset, size_t length, std::string* out) const;
  // Calls visit(offset, length, is_hole) over the segments of [offset, size) in order until it returns false.
  Status VisitSegments(const ObjectId& content, uint64_t size, uint64_t offset,
                       const std::function<bool(uint64_t, uint64_t, bool)>& visit) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
