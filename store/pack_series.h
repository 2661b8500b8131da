// The packs of one sort, chunks or metadata, that one writer fills in a directory of its own: one open at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "store/pack.h"

namespace mirage {

class PackSeries {
 public:
  PackSeries(Env& env, std::string directory, std::string library_uuid)
      : env_(env), directory_(std::move(directory)), uuid_(std::move(library_uuid)) {}
  Result<Location> Append(const CompressedBlock& block);  // as PackWriter::Append
  Status Seal();                                          // what was appended so far is durable; the next block begins a pack
  // Sealed packs that were not moved yet go to `packs_directory`; sync that directory then.
  Status MoveTo(const std::string& packs_directory);
  void TakeBack(const std::string& packs_directory);  // removes what was moved there; nothing may name it
  const std::vector<PackNumber>& sealed() const { return sealed_; }
  uint64_t bytes() const { return sealed_bytes_ + (writer_ ? writer_->size_bytes() : 0); }

 private:
  Env& env_;
  std::string directory_, uuid_;
  std::unique_ptr<PackWriter> writer_;
  std::vector<PackNumber> sealed_;
  size_t moved_ = 0;
  uint64_t sealed_bytes_ = 0;
};

}  // namespace mirage
