// The disk is full, or a sector fails, at each operation in turn: a clear error, nothing lost, nothing left in staging/, and work
// goes on when there is room again.
#include <algorithm>
#include <cstdlib>
#include <random>

#include "tests/crash/scenario.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

enum class Fault { kNoSpaceOnce, kFull, kBadSector };
constexpr Fault kFaults[] = {Fault::kNoSpaceOnce, Fault::kFull, Fault::kBadSector};

uint64_t Seed() {
  const char* given = std::getenv("MIRAGE_TEST_SEED");
  return given ? std::strtoull(given, nullptr, 0) : std::random_device()();
}

// "" or what is wrong. Sets `struck` if the fault met an operation.
std::string FailAt(const Stage& stage, uint64_t number, Fault fault, bool* struck) {
  const Stage::Run run = stage.Begin(fmt::format("fault-{}", number));
  const int code = fault == Fault::kBadSector ? EIO : ENOSPC;
  if (fault == Fault::kFull) {
    run.env->FillAt(number);
  } else {
    run.env->FailAt(number, code);
  }
  const Status status = stage.scenario().act(*run.env, run.path);
  *struck = run.env->failed();
  std::string wrong;
  if (!status) {
    const Error& error = status.error();
    if (error.code != code) wrong += fmt::format("error {}; ", error.code);
    if (error.message.find('\n') != std::string::npos) wrong += "more than one line; ";
    if (code == ENOSPC && error.message.find("No space left on device") == std::string::npos) wrong += "it says not why; ";
    if (fault != Fault::kBadSector) {
      const auto staged = run.env->List(run.path + "/staging");
      if (staged && !staged->empty()) wrong += "left in staging/: " + staged->front() + "; ";
    }
  }
  run.env->Heal();
  // What a failed sync did not write must not be missed later.
  if (fault == Fault::kBadSector && number % 2 == 0) run.env->Restart(FaultEnv::Loss::kUnsynced, 0);
  wrong += stage.Check(run, status.has_value());
  stage.End(run);
  if (wrong.empty()) return wrong;
  return fmt::format("{}: fault {} at operation {} of {}: {}\nafter it said: {}", stage.scenario().name,
                     static_cast<int>(fault), number, stage.operations(), wrong,
                     status ? "done" : status.error().message);
}

class FullDiskTest : public ::testing::TestWithParam<std::string> {};

// Some of the operations, another choice each time.
TEST_P(FullDiskTest, ATenth) {
  const uint64_t seed = Seed();
  const Stage stage(FindScenario(GetParam()));
  std::mt19937_64 random(seed);
  const uint64_t stride = std::max<uint64_t>(stage.operations() / 10, 1);
  for (uint64_t number = 1 + random() % stride; number <= stage.operations(); number += stride) {
    bool struck = false;
    ASSERT_EQ(FailAt(stage, number, kFaults[random() % std::size(kFaults)], &struck), "") << "MIRAGE_TEST_SEED=" << seed;
  }
}

// At each the disk is full from then on, and beside that one of the other faults: the other one at the next, or the next time.
TEST_P(FullDiskTest, EveryOperation) {
  const uint64_t seed = Seed();
  const Stage stage(FindScenario(GetParam()));
  constexpr Fault kOthers[] = {Fault::kNoSpaceOnce, Fault::kBadSector};
  bool full_struck = true, other_struck = true;
  for (uint64_t number = 1; full_struck || other_struck; ++number) {
    ASSERT_EQ(FailAt(stage, number, Fault::kFull, &full_struck), "");
    ASSERT_EQ(FailAt(stage, number, kOthers[(number + seed) % 2], &other_struck), "") << "MIRAGE_TEST_SEED=" << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(, FullDiskTest, ::testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const Scenario& scenario : Scenarios()) names.push_back(scenario.name);
                           return names;
                         }()),
                         [](const auto& scenario) { return scenario.param; });

}  // namespace
}  // namespace mirage::testing
