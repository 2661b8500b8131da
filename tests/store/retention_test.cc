// Retention rules on made-up histories.
#include "store/retention.h"

#include <gtest/gtest.h>

#include <algorithm>

#include <fmt/format.h>

namespace mirage {
namespace {

constexpr int64_t kDay = 86'400;
constexpr int64_t kMonday = 4 * kDay;  // 1970-01-05

ObjectId Id(int i) { return HashBytes(std::to_string(i)); }

// One version a day from a Monday on, v1 to vN.
std::vector<TaggedVersion> Daily(int count) {
  std::vector<TaggedVersion> versions;
  for (int i = 1; i <= count; ++i) {
    versions.push_back({Id(i), kMonday + (i - 1) * kDay, static_cast<uint64_t>(i), {fmt::format("v{}", i)}});
  }
  return versions;
}
using Tags = std::vector<std::string>;

TEST(Retention, NoRuleLetsNothingGo) { EXPECT_EQ(TagsToForget(Daily(5), Id(5), {}), Tags{}); }

TEST(Retention, LastKeepsTheNewest) {
  EXPECT_EQ(TagsToForget(Daily(5), Id(5), {.last = 2, .tags = {}}), (Tags{"v1", "v2", "v3"}));
  EXPECT_EQ(TagsToForget(Daily(5), Id(5), {.last = 9, .tags = {}}), Tags{});
}

TEST(Retention, TheHeadIsKeptWhateverTheRuleSays) {
  EXPECT_EQ(TagsToForget(Daily(3), Id(1), {.last = 1, .tags = {}}), Tags{"v2"});
  EXPECT_EQ(TagsToForget(Daily(3), Id(1), {.tags = {"nothing"}}), (Tags{"v2", "v3"}));
}

TEST(Retention, PeriodsKeepTheNewestOfEach) {
  // v1-v7 are the first week, v8-v14 the second, v15 a Monday.
  EXPECT_EQ(TagsToForget(Daily(15), Id(15), {.weekly = 2, .tags = {}}).size(), 13U);
  const Tags forgotten = TagsToForget(Daily(15), Id(15), {.weekly = 3, .tags = {}});
  for (const char* kept : {"v7", "v14", "v15"}) {
    EXPECT_EQ(std::count(forgotten.begin(), forgotten.end(), kept), 0) << kept;
  }
  EXPECT_EQ(forgotten.size(), 12U);
  // v27 is January 31st, v55 February 28th.
  const Tags monthly = TagsToForget(Daily(60), Id(60), {.monthly = 3, .tags = {}});
  EXPECT_EQ(monthly.size(), 57U);
  for (const char* kept : {"v27", "v55", "v60"}) EXPECT_EQ(std::count(monthly.begin(), monthly.end(), kept), 0) << kept;
}

TEST(Retention, OfOneDayTheNewestIsKept) {
  std::vector<TaggedVersion> versions = Daily(2);
  versions.push_back({Id(3), kMonday + kDay + 5, 3, {"v3"}});
  versions.push_back({Id(4), kMonday + kDay + 5, 4, {"v4"}});  // the same second: the later tag is newer
  EXPECT_EQ(TagsToForget(versions, Id(4), {.daily = 2, .tags = {}}), (Tags{"v2", "v3"}));
  EXPECT_EQ(TagsToForget(versions, Id(4), {.daily = 1, .tags = {}}), (Tags{"v1", "v2", "v3"}));
}

TEST(Retention, TimesBeforeTheEpochAreDaysToo) {
  const std::vector<TaggedVersion> versions{{Id(1), -1, 1, {"v1"}}, {Id(2), 1, 2, {"v2"}}, {Id(3), 2, 3, {"v3"}}};
  EXPECT_EQ(TagsToForget(versions, Id(3), {.daily = 2, .tags = {}}), Tags{"v2"});
}

TEST(Retention, AVersionWithANamedTagIsKeptWithAllItsTags) {
  std::vector<TaggedVersion> versions = Daily(4);
  versions[0].tags = {"golden-1", "v1"};
  EXPECT_EQ(TagsToForget(versions, Id(4), {.last = 1, .tags = {"golden-*"}}), (Tags{"v2", "v3"}));
  versions[1].tags = {"a", "b"};
  EXPECT_EQ(TagsToForget(versions, Id(4), {.last = 1, .tags = {"golden-*"}}), (Tags{"a", "b", "v3"}));
}

}  // namespace
}  // namespace mirage
