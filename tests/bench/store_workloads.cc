#include "tests/bench/store_workloads.h"

#include <chrono>
#include <filesystem>
#include <random>

#include <fmt/format.h>

#include "store/revision.h"
#include "store/tree_reader.h"
#include "tests/testing/library_generator.h"

namespace mirage::bench {
namespace {

using Clock = std::chrono::steady_clock;
double Microseconds(Clock::time_point since) {
  return std::chrono::duration<double, std::micro>(Clock::now() - since).count();
}

template <typename T>
T Must(Result<T> result) {
  if (!result) throw Trouble(result.error().message);
  return std::move(*result);
}
void Must(const Status& status) {
  if (!status) throw Trouble(status.error().message);
}

void Print(bool json, const std::string& name, const std::string& unit, double value) {
  fmt::print(fmt::runtime(json ? "{{\"workload\":\"{}\",\"unit\":\"{}\",\"value\":{:.1f}}}\n" : "{:<42} {}: {:.1f}\n"), name,
             unit, value);
  std::fflush(stdout);
}

std::string Program(const std::string& mirage, const std::string& library) {
  return Quote(mirage) + " -q -L " + Quote(library) + " ";
}

}  // namespace

void MeasureReading(const std::string& mirage, const Versions& versions, const std::string& work, bool json) {
  const std::string path = work + "/reading";
  Run("rm -rf " + Quote(path));
  Run(Program(mirage, path) + "init");
  Run(Program(mirage, path) + "import " + Quote(versions.path(2)) + " bench");
  const auto open = [&](size_t cache_bytes) {
    Library::OpenOptions options;
    options.cache_bytes = cache_bytes;
    return Must(Library::Open(path, options));
  };
  const auto root = [](const std::shared_ptr<Library>& library) {
    return Must(ReadManifest(library->objects(), Must(library->snapshot()->Branch("bench")).value().manifest)).root;
  };
  std::mt19937_64 random(1);
  for (const bool cached : {false, true}) {
    const auto library = open(cached ? size_t{1} << 30 : 1);
    const TreeReader reader(library);
    const Entry log = Must(reader.Find(root(library), "var/log/daemon.log"));
    std::string bytes;
    if (cached) Must(reader.Read(log, 0, static_cast<size_t>(log.size), &bytes));
    std::vector<double> times;
    for (int i = 0; i < 2000; ++i) {
      bytes.clear();
      const uint64_t offset = random() % (log.size / 4096) * 4096;
      const auto start = Clock::now();
      Must(reader.Read(log, offset, 4096, &bytes));
      times.push_back(Microseconds(start));
    }
    Print(json, cached ? "4 KiB random read, block cached" : "4 KiB random read, block not cached", "median us", Median(times));
  }

  std::vector<std::string> deep;
  const auto library = open(0);
  Must(TreeReader(library).Walk(root(library), [&](const std::string& name, const Entry& entry) -> Result<bool> {
    if (!entry.is_directory() && std::count(name.begin(), name.end(), '/') == 7) deep.push_back(name);
    return true;
  }));
  if (deep.empty()) throw Trouble("the tree has no path of depth 8");
  std::vector<double> cold, warm;
  for (int i = 0; i < 50; ++i) {
    const auto fresh = open(0);
    const Entry top = root(fresh);
    const TreeReader reader(fresh);
    const std::string& name = deep[random() % deep.size()];
    auto start = Clock::now();
    Must(reader.Find(top, name));
    cold.push_back(Microseconds(start));
    for (int again = 0; again < 100; ++again) {
      start = Clock::now();
      Must(reader.Find(top, name));
      warm.push_back(Microseconds(start));
    }
  }
  Print(json, "path lookup at depth 8, nothing cached", "median us", Median(cold));
  Print(json, "path lookup at depth 8, cached", "median us", Median(warm));
  Run("rm -rf " + Quote(path));
}

void MeasureMemory(const std::string& mirage, const std::string& work, int sparse_gib, int dense_gib, int files, bool json) {
  const std::string tree = work + "/memory-tree", library = work + "/memory";
  const auto import = [&](const std::string& name, const std::string& make) {
    Run(fmt::format("rm -rf {0} {1} && mkdir {0} && cd {0} && {2}", Quote(tree), Quote(library), make));
    Run(Program(mirage, library) + "init");
    const Cost cost = Meter(Program(mirage, library) + "import " + Quote(tree) + " bench");
    Print(json, "import of " + name, "peak MiB", cost.peak_mib);
    Run("rm -rf " + Quote(tree) + " " + Quote(library));
  };
  import(fmt::format("a sparse file of {} GiB", sparse_gib), fmt::format("truncate -s {}G sparse && echo end >>sparse", sparse_gib));
  import(fmt::format("a dense file of {} GiB", dense_gib),
         fmt::format("(openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 </dev/zero 2>/dev/null || true) | head -c {}G >dense", dense_gib));
  import(fmt::format("{} small files", files),
         fmt::format("for d in $(seq {}); do mkdir $d; seq -f \"$d/%.0f\" 1000 | xargs touch; "
                     "for f in 1 500 999; do echo $d $f >$d/$f; done; done", files / 1000));
}

void MeasureScale(const std::string& mirage, const std::string& work, int versions, int pairs, bool json) {
  const std::string small = work + "/scale-small", large = work + "/scale-large";
  const auto make = [&](const std::string& path, int count) {
    Run("rm -rf " + Quote(path));
    Must(Library::Create(path, {}));
    Must(mirage::testing::GenerateLibrary(Must(Library::Open(path, {})), "branch", {.versions = count}));
  };
  make(small, 10);
  const auto start = Clock::now();
  make(large, versions);
  Print(json, fmt::format("{} versions of 50,000 files made", versions), "seconds", Microseconds(start) / 1e6);
  Print(json, "their library", "MiB", std::stod(Output("du -sk " + Quote(large) + " | cut -f1")) / 1024);
  struct Command {
    std::string name, arguments;  // of mirage; {0}: the last version, {1}: the one before
  };
  const std::vector<Command> commands = {
      {"stat of a path", "stat branch/v{0}:/directory-00250/file-0000050"},
      {"ls of a directory", "ls branch/v{0}:/directory-00250"},
      {"log of ten", "log -n 10 branch"},
      {"list branches", "branch"},
      {"diff of neighbours", "diff branch/v{1} branch/v{0} || [ $? -eq 1 ]"},
  };
  for (const Command& command : commands) {
    const auto side = [&](const std::string& path, int count) {
      return Side{[] {}, Program(mirage, path) + fmt::format(fmt::runtime(command.arguments), count, count - 1)};
    };
    const Measured measured = Measure({command.name, "the same in ten versions", side(large, versions), side(small, 10)}, pairs);
    if (json) {
      fmt::print("{{\"workload\":\"scale\",\"command\":\"{}\",\"large_s\":{:.4f},\"small_s\":{:.4f},\"ratio\":{:.3f}}}\n", command.name,
                 measured.mirage_s, measured.native_s, measured.ratio);
    } else {
      fmt::print("{:<20} {} versions {:.4f} s, 10 versions {:.4f} s, ratio {:.2f} ({:.2f} - {:.2f})\n", command.name, versions,
                 measured.mirage_s, measured.native_s, measured.ratio, measured.lowest, measured.highest);
    }
  }
  Run("rm -rf " + Quote(small) + " " + Quote(large));
}

}  // namespace mirage::bench
