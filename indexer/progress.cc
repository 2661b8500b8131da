#include "indexer/progress.h"

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

namespace mirage {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(200);
constexpr auto kPlainLine = std::chrono::seconds(5);

std::string Size(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(units)) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, units[unit]);
}

}  // namespace

Progress::Progress(bool bar, Say say) : bar_(bar), say_(std::move(say)) {}

Progress::~Progress() { Clear(); }

void Progress::Stage(std::string_view what) {
  std::lock_guard lock(mutex_);
  stage_ = what;
  Draw(true);
}

void Progress::Expect(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  expected_ += bytes;
}

void Progress::Count(uint64_t files, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (counting_since_ == Clock::time_point{}) counting_since_ = Clock::now();
  stage_.clear();
  files_ += files;
  bytes_ += bytes;
  Draw(false);
}

void Progress::Print(std::string_view line) {
  Clear();
  if (say_) say_(line);
}

void Progress::Clear() {
  std::lock_guard lock(mutex_);
  if (!on_screen_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  on_screen_ = false;
}

void Progress::Draw(bool now) {
  if (!bar_ && !say_) return;
  const auto time = Clock::now();
  if (bar_) {
    if (!now && time - drawn_ < kRedraw) return;
    std::fprintf(stderr, "\r%s\033[K", Line(time).c_str());
    std::fflush(stderr);
    on_screen_ = true;
  } else {
    if (time - start_ < kPlainLine || time - drawn_ < kPlainLine) return;
    say_(Line(time));
  }
  drawn_ = time;
}

std::string Progress::Line(Clock::time_point now) const {
  if (!stage_.empty()) return fmt::format("{} ...", stage_);
  const double seconds = std::max(0.001, std::chrono::duration<double>(now - counting_since_).count());
  const double rate = static_cast<double>(bytes_) / seconds;
  std::string line = fmt::format("{} files, {}, {}/s", files_, Size(static_cast<double>(bytes_)), Size(rate));
  if (expected_ > bytes_ && bytes_ > 0) {
    const double share = static_cast<double>(bytes_) / static_cast<double>(expected_);
    const auto left = static_cast<uint64_t>(static_cast<double>(expected_ - bytes_) / rate);
    if (bar_) {
      constexpr size_t kWidth = 24;
      const auto full = std::min(kWidth, static_cast<size_t>(share * kWidth));
      const std::string bar = std::string(full, '#') + std::string(kWidth - full, ' ');
      line = fmt::format("[{}] {:3.0f}% {}", bar, share * 100, line);
    } else {
      line = fmt::format("{:.0f}%: {}", share * 100, line);
    }
    line += fmt::format(", {}:{:02} left", left / 60, left % 60);
  }
  return line;
}

}  // namespace mirage
