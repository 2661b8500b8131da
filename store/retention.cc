#include "store/retention.h"

#include <fnmatch.h>

#include <algorithm>
#include <ctime>
#include <tuple>

namespace mirage {
namespace {

constexpr int64_t kDaySeconds = 86'400;

int64_t FloorDivide(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }
int64_t Day(int64_t time_sec) { return FloorDivide(time_sec, kDaySeconds); }
// 1970-01-01 was a Thursday.
int64_t Week(int64_t time_sec) { return FloorDivide(Day(time_sec) + 3, 7); }
int64_t Month(int64_t time_sec) {
  struct tm parts {};
  const time_t time = static_cast<time_t>(time_sec);
  ::gmtime_r(&time, &parts);
  return int64_t{parts.tm_year} * 12 + parts.tm_mon;
}

// Versions come newest first: marks the first of each period, for so many periods.
void KeepPeriods(const std::vector<TaggedVersion>& versions, uint64_t count, int64_t (*period)(int64_t),
                 std::vector<bool>* kept) {
  int64_t last = 0;
  for (size_t i = 0; i < versions.size() && count > 0; ++i) {
    const int64_t now = period(versions[i].time_sec);
    if (i > 0 && now == last) continue;
    last = now;
    (*kept)[i] = true;
    --count;
  }
}

}  // namespace

std::vector<std::string> TagsToForget(std::vector<TaggedVersion> versions, const ObjectId& head,
                                      const RetentionRule& rule) {
  std::vector<std::string> forget;
  if (rule.empty()) return forget;
  std::sort(versions.begin(), versions.end(), [](const TaggedVersion& a, const TaggedVersion& b) {
    return std::tie(a.time_sec, a.sequence) > std::tie(b.time_sec, b.sequence);
  });
  std::vector<bool> kept(versions.size());
  for (size_t i = 0; i < std::min<size_t>(versions.size(), rule.last); ++i) kept[i] = true;
  KeepPeriods(versions, rule.daily, Day, &kept);
  KeepPeriods(versions, rule.weekly, Week, &kept);
  KeepPeriods(versions, rule.monthly, Month, &kept);
  for (size_t i = 0; i < versions.size(); ++i) {
    const TaggedVersion& version = versions[i];
    const bool named = std::any_of(version.tags.begin(), version.tags.end(), [&](const std::string& tag) {
      return std::any_of(rule.tags.begin(), rule.tags.end(), [&](const std::string& pattern) {
        return ::fnmatch(pattern.c_str(), tag.c_str(), 0) == 0;
      });
    });
    if (!kept[i] && !named && version.manifest != head) forget.insert(forget.end(), version.tags.begin(), version.tags.end());
  }
  std::sort(forget.begin(), forget.end());
  return forget;
}

}  // namespace mirage
