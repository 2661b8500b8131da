// Splits a content's bytes into chunks and holes (FORMAT.md, "Chunking"): every whole aligned block of zeros belongs to
// a hole, and each run of data between holes is cut by the Chunker on its own.
#pragma once

#include <string_view>
#include <vector>

#include "store/chunker.h"

namespace mirage {

struct Piece {
  size_t offset = 0;  // in the bytes that were split
  size_t length = 0;
  bool hole = false;
  bool operator==(const Piece&) const = default;
};

// Splits `bytes`, which lie at `file_offset` of the content, where a piece begins. `last`: nothing follows, or a hole
// does; else the split stops where the cut depends on what follows. Appends the pieces;
// returns how many bytes they cover.
size_t SplitContent(const Chunker& chunker, std::string_view bytes, uint64_t file_offset, bool last,
                    std::vector<Piece>* pieces);

}  // namespace mirage
