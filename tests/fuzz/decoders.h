// One function a decoder, from hostile bytes to nothing: it must not crash, hang or take more memory than the limits
// that store/FORMAT.md and the headers state, and what it accepts must encode to the same bytes again. The seeded test
// (decoders_test.cc) and the fuzzers (fuzzer.cc) run the same ones, over the same kept corpora (corpus/NAME/).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mirage::testing {

// No decoder takes more for one input, in one piece or together.
constexpr size_t kMostMegabytes = 64;
// Longer inputs are refused before any decoder sees them, by who reads them.
constexpr size_t kMostInputBytes = 1 << 20;

struct FuzzTarget {
  std::string_view name;
  void (*run)(std::string_view bytes);  // stops the program where the promise is broken
  std::vector<std::string> (*seeds)();  // a few valid inputs
};
const std::vector<FuzzTarget>& FuzzTargets();

}  // namespace mirage::testing
