// The process stops at each operation in turn, with and without the power: the old or the new state stands whole, and work goes on.
#include <algorithm>
#include <cstdlib>
#include <random>

#include "tests/crash/scenario.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

using Loss = FaultEnv::Loss;

constexpr Loss kLosses[] = {Loss::kNothing, Loss::kUnsynced, Loss::kUnsyncedBytes, Loss::kSome};

uint64_t Seed() {
  const char* given = std::getenv("MIRAGE_TEST_SEED");
  return given ? std::strtoull(given, nullptr, 0) : std::random_device()();
}

// Stops the act at operation `number`. false: it ended before.
bool StopAt(const Stage& stage, uint64_t number, Loss loss, uint64_t seed) {
  const Stage::Run run = stage.Begin(fmt::format("stop-{}", number));
  run.env->StopAt(number);
  const Status status = stage.scenario().act(*run.env, run.path);
  const bool stopped = run.env->stopped();
  run.env->Restart(loss, seed);
  const std::string wrong = stage.Check(run, status.has_value());
  EXPECT_EQ(wrong, "") << stage.scenario().name << " stopped at operation " << number << " of " << stage.operations()
                       << ", loss " << static_cast<int>(loss) << ", MIRAGE_TEST_SEED=" << seed << ", after it said: "
                       << (status ? "done" : status.error().message);
  stage.End(run);
  return stopped;
}

class StopTest : public ::testing::TestWithParam<std::string> {};

// Some of the operations, another choice each time.
TEST_P(StopTest, ATenth) {
  const uint64_t seed = Seed();
  const Stage stage(FindScenario(GetParam()));
  std::mt19937_64 random(seed);
  const uint64_t stride = std::max<uint64_t>(stage.operations() / 10, 1);
  for (uint64_t number = 1 + random() % stride; number <= stage.operations(); number += stride) {
    StopAt(stage, number, kLosses[random() % std::size(kLosses)], seed);
    if (HasFailure()) break;
  }
}

// At each the power goes with all that was not synced, and beside that one of the other losses: another one each time.
TEST_P(StopTest, EveryOperation) {
  const uint64_t seed = Seed();
  const Stage stage(FindScenario(GetParam()));
  constexpr Loss kOthers[] = {Loss::kNothing, Loss::kUnsyncedBytes, Loss::kSome};
  for (uint64_t number = 1; StopAt(stage, number, Loss::kUnsynced, seed) && !HasFailure(); ++number) {
    StopAt(stage, number, kOthers[(number + seed) % std::size(kOthers)], seed);
  }
}

INSTANTIATE_TEST_SUITE_P(, StopTest, ::testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const Scenario& scenario : Scenarios()) names.push_back(scenario.name);
                           return names;
                         }()),
                         [](const auto& scenario) { return scenario.param; });

// RocksDB's place: when the record that makes a version exist is written, everything it stands on is safe, in packs/ and
// in db/; and the record itself is, when the publish returns.
TEST(DurabilityOrder, PacksThenRocksDbThenTheRecord) {
  for (const char* name : {"import", "import_catch_up", "compact"}) {
    const Stage stage(FindScenario(name));
    const Stage::Run run = stage.Begin("order");
    std::vector<std::string> unsafe;
    uint64_t records = 0, packs_synced = 0, manifest_synced = 0, record_written = 0, record_synced = 0;
    run.env->Watch([&](const FaultEnv::Operation& operation) {
      using Kind = FaultEnv::Kind;
      if (operation.kind == Kind::kSyncDirectory && operation.path == "library/packs") packs_synced = operation.number;
      if (operation.kind == Kind::kSync && operation.path.starts_with("library/db/MANIFEST") && record_written == 0) {
        manifest_synced = operation.number;
      }
      if (operation.path != "library/refs.log") return;
      if (operation.kind == Kind::kSync && record_written != 0) record_synced = operation.number;
      if (operation.kind != Kind::kWrite) return;
      ++records;
      record_written = operation.number;
      for (const std::string& path : run.env->Unsynced()) {
        const bool lock = path == "library/db/LOCK" || path == "library/db/ LOCK";
        if (!lock && (path.starts_with("library/packs") || path.starts_with("library/db"))) unsafe.push_back(path);
      }
    });
    Must(stage.scenario().act(*run.env, run.path));
    EXPECT_EQ(unsafe, std::vector<std::string>()) << name;
    EXPECT_EQ(records, 1U) << name;
    EXPECT_LT(0U, packs_synced) << name;
    EXPECT_LT(packs_synced, manifest_synced) << name;
    EXPECT_LT(manifest_synced, record_written) << name;
    EXPECT_LT(record_written, record_synced) << name;
    run.env->Watch({});
    stage.End(run);
  }
}

}  // namespace
}  // namespace mirage::testing
