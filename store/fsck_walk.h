// fsck's walk over versions. First the structure: every directory once, however many versions share it, and of each
// content where it lies. Then the contents, once each, in the order they lie in the packs, so that every block is read
// once more and no more. Only when a content turned out bad are the versions walked again, to name every path it hits.
// Not thread-safe; for fsck.cc alone.
#pragma once

#include <functional>
#include <string>

#include "store/chunk_store.h"
#include "store/content_reader.h"
#include "store/map_node.h"
#include "store/metadata_db.h"

namespace mirage {

// What packs hold, and of RocksDB's objects what they have lost; and whether RocksDB has it too.
class CheckedIndex final : public ChunkIndex {
 public:
  // `live`: the library's database, or null. `compare`: look up in `live` whatever is read.
  CheckedIndex(const MetadataDb& packed, const MetadataDb* live, bool compare)
      : packed_(packed), live_(live), compare_(compare && live) {}
  Result<std::string> ReadObject(ObjectKind kind, const ObjectId& id) const override;
  Result<std::optional<Location>> FindChunk(const ObjectId& id) const override;
  // Whether `live` lacked something that was read since the last call.
  bool TakeLacking() const { return std::exchange(lacking_, false); }

 private:
  const MetadataDb& packed_;
  const MetadataDb* live_;
  bool compare_;
  mutable bool lacking_ = false;
};

class FsckWalk {
 public:
  using Found = std::function<void(std::string what, const std::string& version, const std::string& path)>;
  // Scratch files go below the directory `scratch`, which exists.
  FsckWalk(Env& env, const std::string& scratch, const CheckedIndex& index, const ChunkStore& chunks, Found found);
  ~FsckWalk();

  // Errors of these are of the scratch files; damage goes to `found`.
  Status CheckStructure(const std::string& version, const Manifest& manifest);
  // `at(pack, offset)`: progress. Returns how many distinct contents there are.
  Result<uint64_t> CheckContents(const std::function<void(PackNumber, uint64_t)>& at);
  bool found_bad_contents() const;
  bool found_lacking() const;  // RocksDB lacks something that a version needs and the packs hold
  Status ReportBadContents(const std::string& version, const Manifest& manifest);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
