// What versions reach: the keys of all rows that a version needs, marked in sorted runs. Memory: the runs' and one path
// of nodes, whatever the versions' size. For who has to do with a damaged library. Not thread-safe.
#pragma once

#include <functional>

#include "store/library.h"

namespace mirage {

class ReachableMarks {
 public:
  using Read = std::function<Result<std::optional<std::string>>(ObjectKind, const ObjectId&)>;
  using HasChunk = std::function<Result<bool>(const ObjectId&)>;
  // Scratch files go below the directory `scratch`, which exists.
  ReachableMarks(Env& env, const std::string& scratch, Read read, HasChunk has_chunk);
  ~ReachableMarks();

  // A version with all it reaches, as far as that is there: what is lost leaves the rest marked.
  Status Mark(const ObjectId& manifest);
  // Whether nothing of it is lost; nothing is marked.
  Result<bool> IsWhole(const ObjectId& manifest);
  // The manifest alone: of an ancestor, history is kept.
  Status MarkManifest(const ObjectId& manifest);
  Result<bool> Contains(ObjectKind kind, const ObjectId& id) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Whether the library has a row of everything that the version reaches. Scratch files go below `scratch`, which exists.
Result<bool> IsWhole(const Library& library, const Snapshot& snapshot, const ObjectId& manifest,
                     const std::string& scratch);

}  // namespace mirage
