// mirage-bench: times Mirage against native commands on one tree and prints, a line a workload, the ratio of the two.
#include <fnmatch.h>

#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tests/bench/mount_workloads.h"
#include "tests/bench/workloads.h"

int main(int argc, char** argv) {
  using namespace mirage::bench;
  Fixture::Options options;
  int pairs = 5;
  bool json = false;
  std::vector<std::string> patterns;
  CLI::App app("Times Mirage against native commands run in the same minute. Needs root.", "mirage-bench");
  app.add_option("-n,--pairs", pairs, "pairs of runs a workload; medians are reported (default 5)")->check(CLI::Range(1, 1000));
  app.add_option("--source", options.source, "a directory to work on, copied (default: a generated tree)")
      ->check(CLI::ExistingDirectory);
  app.add_option("--files", options.files, "files in the generated tree (default 12000)")->check(CLI::Range(200, 10'000'000));
  app.add_option("--big-mib", options.big_mib, "size of the big file (default 256)")->check(CLI::Range(1, 100'000));
  std::string parent = "/var/tmp";
  app.add_option("--work", parent, "work in DIR/mirage-bench, made anew (default /var/tmp)")->check(CLI::ExistingDirectory);
  app.add_flag("--keep", options.keep, "leave the working directory");
  app.add_flag("--json", json, "one JSON object a line");
  app.add_option("WORKLOAD", patterns, "names or patterns: find-warm 'import-*' (default: all)");
  CLI11_PARSE(app, argc, argv);
  options.work = parent + "/mirage-bench";
  try {
    const Fixture fixture(options);
    if (!json) {
      fmt::print("{}\n{:<18} {:>10} {:>10} {:>7}  {:<15} {}\n", fixture.Describe(), "workload", "mirage s", "native s",
                 "ratio", "range", "native command");
    }
    std::vector<Workload> workloads = MountWorkloads(fixture);
    for (Workload& workload : Workloads(fixture)) workloads.push_back(std::move(workload));
    for (const Workload& workload : workloads) {
      if (!patterns.empty() && std::none_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
            return fnmatch(pattern.c_str(), workload.name.c_str(), 0) == 0;
          })) {
        continue;
      }
      const Measured measured = Measure(workload, pairs);
      fmt::print(fmt::runtime(json ? "{{\"workload\":\"{}\",\"mirage_s\":{:.4f},\"native_s\":{:.4f},\"ratio\":{:.3f},"
                                     "\"lowest\":{:.3f},\"highest\":{:.3f},\"native\":\"{}\"}}\n"
                                   : "{:<18} {:>10.3f} {:>10.3f} {:>7.2f}  {:>6.2f} - {:<6.2f} {}\n"),
                 workload.name, measured.mirage_s, measured.native_s, measured.ratio, measured.lowest, measured.highest,
                 workload.against);
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "mirage-bench: {}\n", error.what());
    return 1;
  }
  return 0;
}
