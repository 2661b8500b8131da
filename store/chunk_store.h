// Reading chunks: location -> block -> bytes, with a byte-limited cache of decoded blocks, so that one decompression
// serves all the small files that lie together. Thread-safe. Never returns a byte that did not check.
#pragma once

#include <memory>
#include <string>

#include "store/pack.h"

namespace mirage {

class ChunkStore {
 public:
  struct Options {
    size_t cache_bytes = 64 << 20;
    size_t max_open_packs = 128;
  };
  ChunkStore(Env& env, std::string packs_directory, Options options);
  ~ChunkStore();

  // The block at a location. ENOENT: the pack is gone (refresh the snapshot and look up again). EIO: damage.
  Result<std::shared_ptr<const Block>> ReadBlock(const Location& location) const;
  struct Statistics {
    uint64_t hits = 0, misses = 0, cached_bytes = 0;
  };
  Statistics statistics() const;
  // A staged pack (of a transaction) that lies elsewhere than in packs/.
  void AddPack(PackNumber number, std::string path);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
