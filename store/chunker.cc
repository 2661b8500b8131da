#include "store/chunker.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <string>

#include "store/object_id.h"

namespace mirage {
namespace {

constexpr uint32_t kWindowBytes = 64;  // what a 64-bit gear hash remembers: older bytes have been shifted out
constexpr int kNormalisation = 2;      // bits harder before the average, easier behind it

const std::array<uint64_t, 256>& Gear() {
  static const std::array<uint64_t, 256> table = [] {
    std::array<uint64_t, 256> gear{};
    for (size_t i = 0; i < gear.size(); ++i) {
      const ObjectId digest = HashBytes(std::string("mirage gear") + static_cast<char>(i));
      for (size_t byte = 0; byte < 8; ++byte) gear[i] |= uint64_t{digest.bytes[byte]} << (8 * byte);
    }
    return gear;
  }();
  return table;
}

// The highest bits see the whole window; the lowest only the last byte.
uint64_t HighBits(int count) { return ~uint64_t{0} << (64 - count); }

}  // namespace

Status CheckChunkingParameters(const ChunkingParameters& p) {
  if (p.min_bytes < kWindowBytes || p.min_bytes > p.average_bytes || p.average_bytes > p.max_bytes ||
      p.max_bytes > kMaxChunkBytes || !std::has_single_bit(p.average_bytes)) {
    return Fail(EINVAL, "chunk sizes {}/{}/{}: want {} <= minimum <= average <= maximum <= {}, average a power of two",
                p.min_bytes, p.average_bytes, p.max_bytes, kWindowBytes, kMaxChunkBytes);
  }
  return {};
}

Chunker::Chunker(const ChunkingParameters& parameters) : parameters_(parameters) {
  if (!CheckChunkingParameters(parameters)) std::abort();
  const int average_bits = std::countr_zero(parameters.average_bytes);
  mask_small_ = HighBits(average_bits + kNormalisation);
  mask_large_ = HighBits(average_bits - kNormalisation);
}

size_t Chunker::Cut(std::string_view data) const {
  const size_t limit = std::min<size_t>(data.size(), parameters_.max_bytes);
  if (limit <= parameters_.min_bytes) return limit;
  const std::array<uint64_t, 256>& gear = Gear();
  const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
  uint64_t hash = 0;
  size_t i = parameters_.min_bytes - kWindowBytes;
  for (; i + 1 < parameters_.min_bytes; ++i) hash = (hash << 1) + gear[bytes[i]];
  // From here on bytes[0..i] is long enough to be a chunk.
  const size_t average = std::min<size_t>(limit, parameters_.average_bytes);
  for (; i + 1 < average; ++i) {
    hash = (hash << 1) + gear[bytes[i]];
    if ((hash & mask_small_) == 0) return i + 1;
  }
  for (; i < limit; ++i) {
    hash = (hash << 1) + gear[bytes[i]];
    if ((hash & mask_large_) == 0) return i + 1;
  }
  return limit;
}

bool IsZeroRun(std::string_view bytes) {
  if (bytes.empty()) return true;
  // Each byte equals the one before it, and the first is zero.
  return bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

}  // namespace mirage
