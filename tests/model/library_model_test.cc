// Random operations on a library and on a plain map, crashes and full disks among them.
#include "tests/model/library_model.h"

#include <cstdlib>
#include <random>

#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

void RunSeeds(int runs, size_t bytes) {
  const char* given = std::getenv("MIRAGE_TEST_SEED");
  const uint64_t first = given ? std::strtoull(given, nullptr, 0) : std::random_device()();
  for (int run = 0; run < runs; ++run) {
    const uint64_t seed = first + static_cast<uint64_t>(run);
    std::mt19937_64 random(seed);
    std::string operations;
    while (operations.size() < bytes) operations += static_cast<char>(random() >> 56);
    const TemporaryDirectory directory;
    LibraryModel model(directory.path());
    ASSERT_EQ(model.Run(operations), "") << "MIRAGE_TEST_SEED=" << seed << "\n" << model.story();
  }
}

TEST(LibraryModelTest, ForAMoment) { RunSeeds(3, 300); }
TEST(LibraryModelTest, ForLong) { RunSeeds(100, 1500); }

}  // namespace
}  // namespace mirage::testing
