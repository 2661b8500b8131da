// Builds a content's segment list from its segments in order: neighbouring holes become one, nodes are cut by their own
// content (FORMAT.md, "Chunking"), so that a change in a long file writes few new nodes. Memory: one unfinished node a
// level, whatever the file's size.
#pragma once

#include <vector>

#include "store/object.h"

namespace mirage {

constexpr size_t kMaxListNodeSegments = 1024;
constexpr size_t kUncutListSegments = 256;  // a level of no more segments is one node

class ContentListBuilder {
 public:
  explicit ContentListBuilder(ObjectWriter& objects) : objects_(objects) {}
  Status Add(const Segment& segment);  // zero id: a hole
  // Writes the list of a content with this id, or nothing when it is a single chunk, and starts anew.
  Status Finish(const ObjectId& content);
  void Clear();

 private:
  struct Level {
    std::vector<Segment> pending;  // of the node being filled; never empty once something came
    bool cut = false;              // the level is longer than kUncutListSegments
  };
  Status AddTo(size_t level, const Segment& segment);
  Status CutPending(size_t level, size_t count);

  ObjectWriter& objects_;
  std::vector<Level> levels_;
  Segment last_;  // held back, for a hole may grow
};

}  // namespace mirage
