#include "store/content_splitter.h"

#include <algorithm>

namespace mirage {

size_t SplitContent(const Chunker& chunker, std::string_view bytes, uint64_t file_offset, bool last,
                    std::vector<Piece>* pieces) {
  const size_t max_bytes = chunker.parameters().max_bytes;
  const auto is_hole = [&](size_t at) {
    return bytes.size() - at >= kHoleBytes && IsZeroRun(bytes.substr(at, kHoleBytes));
  };
  size_t position = 0;
  // Aligned in the file; no hole begins in [position, data_until).
  size_t data_until = static_cast<size_t>((kHoleBytes - file_offset % kHoleBytes) % kHoleBytes);
  while (position < bytes.size()) {
    // A cut sees max_bytes, and whether the aligned block in which that ends is a hole.
    if (!last && bytes.size() - position < max_bytes + kHoleBytes) break;
    if (position == data_until && is_hole(position)) {
      size_t end = position + kHoleBytes;
      while (end < bytes.size() && is_hole(end)) end += kHoleBytes;
      pieces->push_back({position, end - position, true});
      position = data_until = end;
      continue;
    }
    const size_t window_end = position + std::min(max_bytes, bytes.size() - position);
    while (data_until < window_end && !is_hole(data_until)) data_until += kHoleBytes;
    const size_t length = chunker.Cut(bytes.substr(position, std::min(data_until, window_end) - position));
    pieces->push_back({position, length, false});
    position += length;
  }
  return position;
}

}  // namespace mirage
