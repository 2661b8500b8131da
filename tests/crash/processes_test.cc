// Real processes on one library: importers, committers of refs and readers at once, and importers killed at random points.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include "tests/crash/scenario.h"
#include "tests/testing/store_fixture.h"
#include "tests/testing/world.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

uint64_t Seed() {
  const char* given = std::getenv("MIRAGE_TEST_SEED");
  return given ? std::strtoull(given, nullptr, 0) : std::random_device()();
}

class ProcessesTest : public LibraryTest {
 protected:
  // $MIRAGE_BIN/mirage -L library ARGUMENTS; both outputs into `log`.
  pid_t Start(std::vector<std::string> arguments, const std::string& log) { return StartOn(path(), arguments, log); }
  pid_t StartOn(const std::string& library, std::vector<std::string> arguments, const std::string& log) {
    const char* bin = std::getenv("MIRAGE_BIN");
    if (!bin) throw std::runtime_error("MIRAGE_BIN is not set");
    arguments.insert(arguments.begin(), {std::string(bin) + "/mirage", "-L", library});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) {
      const int out = ::open((directory_ / log).c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      ::dup2(out, 1);
      ::dup2(out, 2);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    return pid;
  }
  // The exit code; a signal's number and 128.
  static int Wait(pid_t pid) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string Log(const std::string& log) {
    const auto bytes = ReadWholeFile(Env::Default(), directory_ / log, 1 << 20);
    return bytes ? *bytes : "";
  }
  std::string Source(const std::string& name, const std::string& text, int files = 20) {
    const std::string source = directory_ / name;
    fs::create_directories(source + "/etc");
    for (int i = 0; i < files; ++i) std::ofstream(fmt::format("{}/etc/{}", source, i)) << text << i << "\n";
    return source;
  }
  void ExpectClean() {
    const auto library = Must(Library::Open(path(), {}));
    EXPECT_EQ(Must(FsckFindings(*library)), "");
  }
};

// Every import that says so has its version, each on top of the one before, whoever raced with it.
TEST_F(ProcessesTest, ImportersOfOneBranchFollowEachOther) {
  constexpr int kImporters = 4, kRounds = 3;
  std::vector<pid_t> pids;
  for (int importer = 0; importer < kImporters; ++importer) {
    std::vector<std::string> sources;
    for (int round = 0; round < kRounds; ++round) {
      sources.push_back(Source(fmt::format("source{}-{}", importer, round), fmt::format("{} {} ", importer, round)));
    }
    const pid_t pid = ::fork();
    if (pid == 0) {
      for (const std::string& source : sources) {
        if (Wait(Start({"-q", "import", source, "debian"}, "log")) != 0) ::_exit(1);
      }
      ::_exit(0);
    }
    pids.push_back(pid);
  }
  // Meanwhile others move refs of their own.
  for (int i = 0; i < 5; ++i) {
    const std::string name = "other" + std::to_string(i);
    const auto library = Must(Library::Open(path(), {}));
    Must(PublishFiles(library, name, {{"f", name}}));
    EXPECT_EQ(Must(ReadWorld(library)).at(name).at("f"), name);
  }
  for (const pid_t pid : pids) EXPECT_EQ(Wait(pid), 0) << Log("log");
  ExpectClean();
  const auto library = Must(Library::Open(path(), {}));
  std::set<std::string> texts;
  ObjectId id = Must(library->snapshot()->Branch("debian"))->manifest;
  int versions = 0;
  while (true) {
    ++versions;
    texts.insert(Must(ReadVersion(library, id)).at("etc/0"));
    const Manifest manifest = Must(ReadManifest(library->objects(), id));
    if (manifest.parents.empty()) break;
    ASSERT_EQ(manifest.parents.size(), 1U);
    id = manifest.parents[0];
  }
  EXPECT_EQ(versions, kImporters * kRounds);
  EXPECT_EQ(texts.size(), static_cast<size_t>(kImporters * kRounds));
  EXPECT_EQ(Must(library->snapshot()->Tags("debian")).size(), static_cast<size_t>(kImporters * kRounds));
}

TEST_F(ProcessesTest, OneOfManyGetsATag) {
  Must(Publish(library_, "debian", {{"f", "x"}}));
  std::vector<pid_t> pids;
  for (int i = 0; i < 6; ++i) pids.push_back(Start({"tag", "debian/v1", "released"}, "log"));
  int done = 0;
  for (const pid_t pid : pids) done += Wait(pid) == 0;
  EXPECT_EQ(done, 1) << Log("log");
  EXPECT_NE(Log("log").find("released"), std::string::npos) << Log("log");
  ExpectClean();
}

TEST_F(ProcessesTest, AWaitInVainNamesWhoHoldsTheLock) {
  std::ofstream(path() + "/mirage.yaml") << "lock_timeout_ms: 200\n";
  const std::string source = Source("source", "text ");
  // With its words, and without: one that shares the lock writes none.
  for (const bool exclusive : {true, false}) {
    std::optional<FileLock> lock;
    if (exclusive) {
      lock = Must(FileLock::Acquire(Env::Default(), path() + "/locks/publish", LockMode::kExclusive, 0, "a test of locks"));
    } else {
      lock = Must(FileLock::Acquire(Env::Default(), path() + "/locks/publish", LockMode::kShared, 0, ""));
    }
    const std::string log = exclusive ? "exclusive" : "shared";
    EXPECT_EQ(Wait(Start({"-q", "import", source, "debian"}, log)), 1);
    EXPECT_NE(Log(log).find(fmt::format("locked by process {} crash.processes", ::getpid())), std::string::npos) << Log(log);
    EXPECT_EQ(Log(log).find("a test of locks") != std::string::npos, exclusive) << Log(log);
    EXPECT_EQ(Log(log).find("moved"), std::string::npos) << "the branch did not: " << Log(log);
  }
  EXPECT_EQ(Wait(Start({"-q", "import", source, "debian"}, "free")), 0) << Log("free");
}

class KillTest : public ProcessesTest {
 protected:
  // `rounds` commits of the same overlay, each killed somewhere: what is left can be committed again, to the same end.
  void KillCommits(int rounds) {
    const uint64_t seed = Seed();
    SCOPED_TRACE(fmt::format("MIRAGE_TEST_SEED={}", seed));
    std::mt19937_64 random(seed);
    const Stage stage(FindScenario("commit"));
    const auto commit = [&](const Stage::Run& run, std::optional<uint64_t> kill_after_us) {
      const auto overlays = Must(run.env->List(run.path + "/overlays"));
      const pid_t pid = StartOn(run.path, {"-q", "overlay", "commit", overlays.at(0)}, "log");
      if (kill_after_us) {
        std::this_thread::sleep_for(std::chrono::microseconds(*kill_after_us));
        ::kill(pid, SIGKILL);
      }
      return Wait(pid);
    };
    const Stage::Run first = stage.Begin("first");
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_EQ(commit(first, std::nullopt), 0) << Log("log");
    const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
    first.env->Restart(FaultEnv::Loss::kNothing, 0);
    ASSERT_EQ(stage.Check(first, true), "");
    for (int round = 0; round < rounds; ++round) {
      const Stage::Run run = stage.Begin("killed");
      const int code = commit(run, random() % static_cast<uint64_t>(whole.count()));
      run.env->Restart(FaultEnv::Loss::kNothing, 0);
      ASSERT_EQ(stage.Check(run, code == 0), "") << "round " << round << "\n" << Log("log");
      stage.End(run);
    }
  }

  // `rounds` imports, each killed somewhere: the library says what it said, or the whole new version as well.
  void Kill(int rounds) {
    const uint64_t seed = Seed();
    SCOPED_TRACE(fmt::format("MIRAGE_TEST_SEED={}", seed));
    std::mt19937_64 random(seed);
    library_.reset();
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_EQ(Wait(Start({"-q", "import", Source("source", "whole "), "debian"}, "log")), 0) << Log("log");
    const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
    World world = Must(ReadWorld(Must(Library::Open(path(), {}))));
    int killed = 0;
    for (int round = 0; round < rounds; ++round) {
      const std::string text = fmt::format("{} ", random());
      const std::string source = Source("source", text);
      const pid_t pid = Start({"-q", "import", source, "debian"}, "log");
      // The moment is what is random here; nothing is waited for.
      std::this_thread::sleep_for(std::chrono::microseconds(random() % static_cast<uint64_t>(whole.count())));
      ::kill(pid, SIGKILL);
      const int code = Wait(pid);
      killed += code == 128 + SIGKILL;
      const auto library = Must(Library::Open(path(), {}));
      ASSERT_EQ(Must(FsckFindings(*library)), "") << "round " << round;
      const World now = Must(ReadWorld(library));
      const bool published = now.size() != world.size();
      ASSERT_TRUE(published || code != 0) << "round " << round;
      if (published) {
        World expected = world;
        const std::string tag = Must(library->snapshot()->LatestTag("debian"));
        Files& files = expected["debian"];
        for (auto& [name, bytes] : files) bytes = text + name.substr(name.rfind('/') + 1) + "\n";
        expected["debian/" + tag] = files;
        ASSERT_EQ(now, expected) << "round " << round;
      } else {
        ASSERT_EQ(now, world) << "round " << round;
      }
      world = now;
    }
    ASSERT_EQ(Wait(Start({"-q", "import", Source("source", "last "), "debian"}, "log")), 0) << Log("log");
    ExpectClean();
    EXPECT_TRUE(Must(Env::Default().List(path() + "/staging")).empty()) << "the next writer removes what the dead left";
    EXPECT_GT(killed, 0);
  }
};

TEST_F(KillTest, ImportersKilledAtRandom) { Kill(8); }
TEST_F(KillTest, ImportersKilledAtRandomForLong) { Kill(300); }
TEST_F(KillTest, CommittersKilledAtRandom) { KillCommits(6); }
TEST_F(KillTest, CommittersKilledAtRandomForLong) { KillCommits(150); }

}  // namespace
}  // namespace mirage::testing
