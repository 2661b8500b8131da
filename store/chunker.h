// Content-defined cuts: FastCDC with normalised chunking (Xia et al., USENIX ATC 2016). No I/O, no state between
// calls, so that a file's cuts depend on its bytes alone. Masks and gear table: FORMAT.md, "Chunking".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "store/result.h"

namespace mirage {

struct ChunkingParameters {
  uint32_t min_bytes = 4 << 10;
  uint32_t average_bytes = 16 << 10;  // a power of two
  uint32_t max_bytes = 64 << 10;
  bool operator==(const ChunkingParameters&) const = default;
};

constexpr uint32_t kMaxChunkBytes = 1 << 20;
// EINVAL: not 64 <= min <= average <= max <= kMaxChunkBytes, or the average is no power of two.
Status CheckChunkingParameters(const ChunkingParameters& parameters);

class Chunker {
 public:
  explicit Chunker(const ChunkingParameters& parameters);  // checked ones
  // Length of the first chunk of `data`: min..max bytes, or all of it when shorter than min. `data` must hold
  // max_bytes, or be all that is left of the run.
  size_t Cut(std::string_view data) const;
  const ChunkingParameters& parameters() const { return parameters_; }

 private:
  ChunkingParameters parameters_;
  uint64_t below_small_, below_large_;  // a hash below it ends a chunk: before the average, behind it
};

constexpr size_t kHoleBytes = 4096;  // aligned runs of zeros of this size are holes: never stored
bool IsZeroRun(std::string_view bytes);

}  // namespace mirage
