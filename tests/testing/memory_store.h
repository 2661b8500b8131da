// What a ContentWriter fills and a ContentReader reads, without a library: one pack on disk, its index and the lists in
// memory.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "store/content_reader.h"
#include "store/content_writer.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {

class MemoryStore final : public ContentWriter::Sink, public ObjectWriter, public ChunkIndex {
 public:
  static constexpr PackNumber kPack = 0x1234;
  static constexpr std::string_view kUuid = "0123456789abcdef";

  explicit MemoryStore(size_t cache_bytes = 64 << 20)
      : chunks_(Env::Default(), directory_.path(), {.cache_bytes = cache_bytes}),
        pack_(Must(PackWriter::Create(Env::Default(), pack_path(), kPack, kUuid))) {}

  std::string pack_path() const { return directory_ / PackFileName(kPack); }
  const ChunkStore& chunks() const { return chunks_; }
  PackWriter& pack() { return *pack_; }

  Result<bool> HasChunk(const ObjectId& id) override { return index.contains(id); }
  Status AppendBlock(CompressedBlock block) override {
    if (blocks_until_failure-- == 0) return Fail(ENOSPC, "the disk is full");
    ASSIGN_OR_RETURN(Location location, pack_->Append(block));
    for (const BlockRow& row : block.rows) {
      EXPECT_TRUE(index.emplace(row.id, location).second) << "stored twice: " << row.id.Hex();
      order.push_back(row.id);
      ++location.slot;
    }
    return {};
  }
  Result<ObjectId> WriteObject(ObjectKind kind, std::string_view encoding) override {
    const ObjectId id = HashBytes(encoding);
    const std::lock_guard lock(mutex_);
    objects[{kind, id}] = encoding;
    return id;
  }
  Status WriteContentList(const ObjectId& content, std::string_view encoding) override {
    const std::lock_guard lock(mutex_);
    objects[{ObjectKind::kContent, content}] = encoding;
    return {};
  }
  Result<std::string> ReadObject(ObjectKind kind, const ObjectId& id) const override {
    const std::lock_guard lock(mutex_);
    const auto found = objects.find({kind, id});
    if (found == objects.end()) return Fail(ENOENT, "no object {}", id.Hex());
    return found->second;
  }
  Result<std::optional<Location>> FindChunk(const ObjectId& id) const override {
    const auto found = index.find(id);
    if (found == index.end()) return std::nullopt;
    return found->second;
  }

  // For tests to look at, or to spoil; not while a writer runs.
  std::map<ObjectId, Location> index;
  std::vector<ObjectId> order;  // of the chunks in the pack
  std::map<std::pair<ObjectKind, ObjectId>, std::string> objects;
  int blocks_until_failure = -1;  // -1: never

 private:
  TemporaryDirectory directory_;
  ChunkStore chunks_;
  std::unique_ptr<PackWriter> pack_;
  mutable std::mutex mutex_;
};

// Bytes that do not compress, the same for the same seed everywhere.
inline std::string RandomBytes(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (size_t at = 0; at < size; at += sizeof state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(bytes.data() + at, &state, std::min(sizeof state, size - at));
  }
  return bytes;
}

}  // namespace mirage::testing
