// Which tags of a branch a retention rule lets go. A version is kept with all its tags, or loses all of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/object_id.h"

namespace mirage {

// Each number keeps that many: the newest versions; the newest version of each of the newest days (weeks, months) that have any. What any part
// keeps is kept. Days are UTC's, weeks begin on Monday.
struct RetentionRule {
  uint64_t last = 0, daily = 0, weekly = 0, monthly = 0;
  std::vector<std::string> tags;  // fnmatch(3) patterns: a version with such a tag is kept
  // A rule that keeps nothing is no rule, and lets nothing go.
  bool empty() const { return last + daily + weekly + monthly == 0 && tags.empty(); }
};

struct TaggedVersion {
  ObjectId manifest;
  int64_t time_sec = 0;     // of the version
  uint64_t sequence = 0;    // of its first tag: which of two of one time is newer
  std::vector<std::string> tags;
};
// The tags to delete, sorted. The version `head` is kept whatever the rule says.
std::vector<std::string> TagsToForget(std::vector<TaggedVersion> versions, const ObjectId& head, const RetentionRule& rule);

}  // namespace mirage
