// What an import shows while it runs: one line redrawn on a terminal, or, where there is none, a plain line every few
// seconds once it has taken more than five. Nothing when `say` is empty and no bar is wanted. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

namespace mirage {

class Progress {
 public:
  using Say = std::function<void(std::string_view)>;
  Progress(bool bar, Say say);
  ~Progress();  // takes the bar away
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Stage(std::string_view what);  // what is being done while there is nothing to count
  void Expect(uint64_t bytes);        // adds to the total
  void Count(uint64_t files, uint64_t bytes);
  void Print(std::string_view line);  // a line of text through `say`, above the bar
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;
  void Draw(bool now);  // under mutex_
  std::string Line(Clock::time_point now) const;

  const bool bar_;
  const Say say_;
  const Clock::time_point start_ = Clock::now();
  std::mutex mutex_;
  Clock::time_point counting_since_{};  // guarded by mutex_, like all below
  Clock::time_point drawn_ = start_;
  std::string stage_;
  uint64_t files_ = 0, bytes_ = 0, expected_ = 0;
  bool on_screen_ = false;
};

}  // namespace mirage
