// mirage-bench-store: the store beside its peers, its latencies, its memory and how it scales.
#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tests/bench/peers.h"

int main(int argc, char** argv) {
  using namespace mirage::bench;
  Versions::Options options;
  std::string parent = "/var/tmp";
  std::vector<std::string> programs;
  int rounds = 3;
  bool keep = false, json = false;
  CLI::App app("Measures the store beside other archivers, all in one run.", "mirage-bench-store");
  app.add_option("-n,--rounds", rounds, "rounds; medians are reported (default 3)")->check(CLI::Range(1, 1000));
  app.add_option("--source", options.source, "a directory to make the versions of (default: this machine's Debian packages)")
      ->check(CLI::ExistingDirectory);
  app.add_option("--tree-mib", options.tree_mib, "size of the first version (default 540)")->check(CLI::Range(1, 100'000));
  app.add_option("--log-mib", options.log_mib, "size of the log in the second one (default 100)")->check(CLI::Range(10, 100'000));
  app.add_option("--programs", programs, "names or patterns of those to compare (default: all)");
  app.add_option("--work", parent, "work in DIR/mirage-bench-store (default /var/tmp)")->check(CLI::ExistingDirectory);
  app.add_flag("--keep", keep, "leave the working directory, and use the trees that are there");
  app.add_flag("--json", json, "one JSON object a line");
  CLI11_PARSE(app, argc, argv);
  try {
    const std::string work = parent + "/mirage-bench-store", binary = std::filesystem::read_symlink("/proc/self/exe").parent_path();
    options.directory = work + "/trees";
    options.reuse = keep;
    const Versions versions(options);
    if (!json) fmt::print("{}", versions.Describe());
    auto peers = Peers(binary + "/mirage");
    if (!programs.empty()) {
      std::erase_if(peers, [&](const Peer& peer) {
        return std::none_of(programs.begin(), programs.end(), [&](const std::string& pattern) {
          return fnmatch(pattern.c_str(), peer.name.c_str(), 0) == 0;
        });
      });
    }
    PrintPeers(ComparePeers(peers, versions, work, rounds, keep), json);
    if (!keep) std::filesystem::remove_all(work);
  } catch (const std::exception& error) {
    fmt::print(stderr, "mirage-bench-store: {}\n", error.what());
    return 1;
  }
  return 0;
}
