// What is cut short in the tests of crashes and full disks: one act on a small library, and the two worlds that may stand
// after it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/testing/fault_env.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/world.h"

namespace mirage::testing {

struct Scenario {
  std::string name;
  std::function<void(const std::string& path)> prepare;           // makes the library, on the real disk
  std::function<Status(Env& env, const std::string& path)> act;   // opens it, does one thing, closes it
  bool repeatable = false;  // `act` after a success changes nothing and is no error
};

// import: a version of some small files and a longer one; import_catch_up: with so many refs moved before that RocksDB's are
// brought up to date; compact: with so many tables that the publish merges them; tag; branch; delete_branch; commit: of an overlay; gc and
// gc_compact: of a library with dead versions, dead packs and half-dead ones; init.
const std::vector<Scenario>& Scenarios();
const Scenario& FindScenario(const std::string& name);

// A scenario prepared once, and copied for each run.
class Stage {
 public:
  explicit Stage(const Scenario& scenario);
  const Scenario& scenario() const { return scenario_; }
  const World& before() const { return before_; }  // empty for init: there is no library
  const World& after() const { return after_; }
  uint64_t operations() const { return operations_; }  // of one act; a run may differ by a few (threads)
  // A fresh copy, under an env of its own.
  struct Run {
    std::unique_ptr<FaultEnv> env;
    std::string path;  // of the library
  };
  Run Begin(const std::string& name) const;
  void End(const Run& run) const;  // removes it
  // The library is whole: it opens, fsck is clean, its world is one of the two (the new one alone if `done`), the next publish works
  // and leaves nothing behind in staging/. "" or what is wrong.
  std::string Check(const Run& run, bool done) const;

 private:
  const Scenario& scenario_;
  const TemporaryDirectory temporary_;
  const std::string directory_;
  World before_, after_;
  uint64_t operations_ = 0;
};

}  // namespace mirage::testing
