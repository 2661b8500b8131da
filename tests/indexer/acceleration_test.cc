#include "indexer/acceleration.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>

namespace mirage::testing {
namespace {

// Whatever a machine's /dev/kvm is worth, a right guest of a few instructions comes to its end there: were it wrong, it
// would be taken for missing acceleration everywhere.
TEST(AccelerationTest, AShortProbeHalts) {
  if (access("/dev/kvm", R_OK | W_OK) != 0) {
    EXPECT_NE(RunProbeGuest(1000).find("/dev/kvm"), std::string::npos);
    GTEST_SKIP() << "/dev/kvm is missing";
  }
  EXPECT_EQ(RunProbeGuest(1000), "");
}

TEST(AccelerationTest, TheProbeIsBoundedAndMadeOnce) {
  const auto start = std::chrono::steady_clock::now();
  const std::string why = ProbeHardwareAcceleration();
  const auto middle = std::chrono::steady_clock::now();
  EXPECT_LT(middle - start, std::chrono::seconds(5));
  EXPECT_EQ(ProbeHardwareAcceleration(), why);
  EXPECT_LT(std::chrono::steady_clock::now() - middle, std::chrono::milliseconds(100));
}

}  // namespace
}  // namespace mirage::testing
