// mirage-bench-store: the store beside its peers, its latencies, its memory and how it scales.
#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tests/bench/peers.h"
#include "tests/bench/store_workloads.h"

int main(int argc, char** argv) {
  using namespace mirage::bench;
  Versions::Options options;
  std::string parent = "/var/tmp";
  std::vector<std::string> programs;
  std::vector<std::string> workloads;
  int rounds = 3, scale_versions = 1'000, sparse_gib = 20, dense_gib = 4, small_files = 300'000;
  bool keep = false, json = false;
  CLI::App app("Measures the store beside other archivers, all in one run.", "mirage-bench-store");
  app.add_option("-n,--rounds", rounds, "rounds; medians are reported (default 3)")->check(CLI::Range(1, 1000));
  app.add_option("--source", options.source, "a directory to make the versions of (default: this machine's Debian packages)")
      ->check(CLI::ExistingDirectory);
  app.add_option("--tree-mib", options.tree_mib, "size of the first version (default 540)")->check(CLI::Range(1, 100'000));
  app.add_option("--log-mib", options.log_mib, "size of the log in the second one (default 100)")->check(CLI::Range(10, 100'000));
  app.add_option("--programs", programs, "names or patterns of those to compare (default: all)");
  app.add_option("--scale-versions", scale_versions, "versions of the large library (default 1000)")->check(CLI::Range(11, 100'000));
  app.add_option("--sparse-gib", sparse_gib, "size of the sparse file (default 20)")->check(CLI::Range(1, 100'000));
  app.add_option("--dense-gib", dense_gib, "size of the dense file (default 4)")->check(CLI::Range(1, 100'000));
  app.add_option("--small-files", small_files, "files of the large tree (default 300000)")->check(CLI::Range(1000, 100'000'000));
  app.add_option("WORKLOAD", workloads, "of peers, reading, memory, scale (default: all)")
      ->check(CLI::IsMember({"peers", "reading", "memory", "scale"}));
  app.add_option("--work", parent, "work in DIR/mirage-bench-store (default /var/tmp)")->check(CLI::ExistingDirectory);
  app.add_flag("--keep", keep, "leave the working directory, and use the trees that are there");
  app.add_flag("--json", json, "one JSON object a line");
  CLI11_PARSE(app, argc, argv);
  try {
    const std::string work = parent + "/mirage-bench-store", binary = std::filesystem::read_symlink("/proc/self/exe").parent_path();
    options.directory = work + "/trees";
    options.reuse = keep;
    const auto wanted = [&](const char* name) {
      return workloads.empty() || std::find(workloads.begin(), workloads.end(), name) != workloads.end();
    };
    const std::string mirage_program = binary + "/mirage";
    std::filesystem::create_directories(work);
    std::optional<Versions> versions;
    if (wanted("peers") || wanted("reading")) {
      versions.emplace(options);
      if (!json) fmt::print("{}", versions->Describe());
    }
    auto peers = Peers(mirage_program);
    if (!programs.empty()) {
      std::erase_if(peers, [&](const Peer& peer) {
        return std::none_of(programs.begin(), programs.end(), [&](const std::string& pattern) {
          return fnmatch(pattern.c_str(), peer.name.c_str(), 0) == 0;
        });
      });
    }
    if (wanted("peers")) PrintPeers(ComparePeers(peers, *versions, work, rounds, keep), json);
    if (wanted("reading")) MeasureReading(mirage_program, *versions, work, json);
    if (wanted("memory")) MeasureMemory(mirage_program, work, sparse_gib, dense_gib, small_files, json);
    if (wanted("scale")) MeasureScale(mirage_program, work, scale_versions, 2 * rounds + 1, json);
    if (!keep) std::filesystem::remove_all(work);
  } catch (const std::exception& error) {
    fmt::print(stderr, "mirage-bench-store: {}\n", error.what());
    return 1;
  }
  return 0;
}
