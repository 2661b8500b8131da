#include "tests/bench/measure.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>

#include <fmt/format.h>

namespace mirage::bench {
namespace {

double Seconds(const Side& side) {
  if (side.prepare) side.prepare();
  const auto start = std::chrono::steady_clock::now();
  Run(side.command);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Standard error is gathered by bash itself, so that one pipe suffices and a daemon left behind holds none of ours.
std::string Capture(const std::string& command, bool keep_output) {
  const std::string script = fmt::format(
      "set -o pipefail; errors=$(mktemp); ( {} ) {} 2>\"$errors\"; status=$?; "
      "if [ $status -ne 0 ]; then head -c 2000 \"$errors\"; fi; rm -f \"$errors\"; exit $status",
      command, keep_output ? "" : ">/dev/null");
  FILE* pipe = popen(("exec bash -c " + Quote(script)).c_str(), "r");
  if (pipe == nullptr) throw Trouble("popen failed");
  std::string output;
  std::array<char, 4096> buffer;
  while (const size_t count = fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), count);
  const int status = pclose(pipe);
  while (output.ends_with('\n')) output.pop_back();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw Trouble(fmt::format("{}\nfailed with status {}: {}", command, WEXITSTATUS(status), output));
  }
  return output;
}

}  // namespace

void Run(const std::string& command) { Capture(command, false); }
std::string Output(const std::string& command) { return Capture(command, true); }

std::string Quote(std::string_view word) {
  std::string quoted = "'";
  for (const char c : word) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

Cost Meter(const std::string& command) {
  const std::string script = "set -o pipefail; " + command;
  const auto start = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child < 0) throw Trouble("fork failed");
  if (child == 0) {
    const int null = open("/dev/null", O_RDWR);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    execl("/bin/bash", "bash", "-c", script.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  if (wait4(child, &status, 0, &usage) != child) throw Trouble("wait4 failed");
  Cost cost;
  cost.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) throw Trouble(command + "\nfailed");
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  cost.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  cost.peak_mib = static_cast<double>(usage.ru_maxrss) / 1024;
  return cost;
}

Measured Measure(const Workload& workload, int pairs) {
  std::vector<double> mirage, native, ratios;
  for (int i = 0; i < pairs; ++i) {
    if (i % 2 == 0) {
      native.push_back(Seconds(workload.native));
      mirage.push_back(Seconds(workload.mirage));
    } else {
      mirage.push_back(Seconds(workload.mirage));
      native.push_back(Seconds(workload.native));
    }
    ratios.push_back(mirage.back() / native.back());
  }
  const auto [lowest, highest] = std::minmax_element(ratios.begin(), ratios.end());
  return {Median(mirage), Median(native), Median(ratios), *lowest, *highest};
}

}  // namespace mirage::bench
