// Every decoder over its seeds, its kept corpus, and seeded damage to both: the fuzzers' promise, a few seconds' worth.
// MIRAGE_SEED repeats a run. MIRAGE_WRITE_CORPUS=DIR writes the seeds to DIR/TARGET/, for a fuzzer to begin with.
#include "tests/fuzz/decoders.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "store/object_id.h"

// No piece of memory larger than a decoder may take is given out, as under the fuzzers' -malloc_limit_mb.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "max_allocation_size_mb=64:allocator_may_return_null=0"; }

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kRounds = 1500;  // of damage to each input

std::string Damage(std::string bytes, std::mt19937& random) {
  const auto place = [&](size_t size) { return size == 0 ? 0 : random() % size; };
  for (size_t edits = 1 + random() % 3; edits-- > 0;) {
    switch (random() % 7) {
      case 0:
        bytes.resize(place(bytes.size()));
        break;
      case 1:
        bytes.append(1 + random() % 40, static_cast<char>(random()));
        break;
      case 2:
        bytes.insert(place(bytes.size()), 1 + random() % 8, static_cast<char>(random()));
        break;
      case 3:
        bytes.erase(place(bytes.size()), 1 + random() % 8);
        break;
      case 4:
        if (bytes.size() >= 4) {  // a length or an offset
          static constexpr uint32_t kNumbers[] = {0, 1, 8, 0xff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff};
          std::memcpy(bytes.data() + place(bytes.size() - 3), &kNumbers[random() % std::size(kNumbers)], 4);
        }
        break;
      default:
        if (!bytes.empty()) bytes[place(bytes.size())] ^= static_cast<char>(1 << random() % 8);
    }
  }
  return bytes;
}

class Decoders : public ::testing::TestWithParam<FuzzTarget> {};

TEST_P(Decoders, KeepTheirPromise) {
  const FuzzTarget& target = GetParam();
  std::vector<std::string> inputs = target.seeds();
  if (const char* directory = std::getenv("MIRAGE_WRITE_CORPUS")) {
    const std::string to = fmt::format("{}/{}", directory, target.name);
    fs::create_directories(to);
    for (const std::string& seed : inputs) {
      std::ofstream(to + "/" + HashBytes(seed).Hex().substr(0, 16), std::ios::binary) << seed;
    }
  }
  const std::string corpus = fmt::format("{}/tests/fuzz/corpus/{}", std::getenv("MIRAGE_SOURCE"), target.name);
  size_t kept = 0;
  for (const auto& item : fs::directory_iterator(corpus)) {
    std::ifstream in(item.path(), std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    ++kept;
  }
  EXPECT_GT(kept, 0U) << corpus;
  const char* given = std::getenv("MIRAGE_SEED");
  const unsigned first = given ? static_cast<unsigned>(std::stoul(given)) : std::random_device()();
  // What breaks a promise ends the program, so that the seed is told before.
  fmt::print("{}: MIRAGE_SEED={}\n", target.name, first);
  std::fflush(stdout);
  std::mt19937 random(first);
  const size_t rounds = kRounds * 4 / (inputs.size() + 3) + 1;
  for (const std::string& input : inputs) {
    target.run(input);
    for (size_t round = 0; round < rounds; ++round) target.run(Damage(input, random));
  }
}

INSTANTIATE_TEST_SUITE_P(All, Decoders, ::testing::ValuesIn(FuzzTargets()),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace mirage::testing
