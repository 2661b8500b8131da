// The fuzzer of one decoder: MIRAGE_FUZZ_TARGET is its name.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/decoders.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const run = [] {
    for (const auto& target : mirage::testing::FuzzTargets()) {
      if (target.name == MIRAGE_FUZZ_TARGET) return new auto(target.run);
    }
    std::fputs("no such target: " MIRAGE_FUZZ_TARGET "\n", stderr);
    std::abort();
  }();
  if (size <= mirage::testing::kMostInputBytes) (*run)({reinterpret_cast<const char*>(data), size});
  return 0;
}
