// Limits of a map that its builder, decoder and reader share.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mirage {

constexpr size_t kMaxMapLevel = 15;
constexpr uint64_t kMaxMapPairs = (uint64_t{1} << 63) - 1;

}  // namespace mirage
