// A workload is timed against a native command in pairs, run one right after the other with the order swapped every time,
// so that both see the same machine; what is reported is the median of the pairs' ratios. Seconds alone mean little.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mirage::bench {

// What a benchmark cannot go on after: a command that failed. main() prints it.
struct Trouble : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Runs a bash command, its standard output dropped. Throws Trouble with its standard error when it fails.
void Run(const std::string& command);
// The same, its standard output returned without the last newline.
std::string Output(const std::string& command);
// `word` in single quotes for bash.
std::string Quote(std::string_view word);

// What a command and all it started cost.
struct Cost {
  double seconds = 0, cpu_seconds = 0;  // wall clock; user and system time of all processes
  double peak_mib = 0;                  // resident memory of the largest one
};
Cost Meter(const std::string& command);  // throws Trouble when it fails

double Median(std::vector<double> values);  // of at least one

struct Side {
  std::function<void()> prepare;  // not timed; may be empty
  std::string command;            // bash; timed from its start to its end
};

struct Workload {
  std::string name;
  std::string against;  // the native side in a few words
  Side mirage, native;
};

struct Measured {
  double mirage_s = 0, native_s = 0;               // medians
  double ratio = 0, lowest = 0, highest = 0;       // median and range of mirage / native over the pairs
};

Measured Measure(const Workload& workload, int pairs);

}  // namespace mirage::bench
