// Packs: append-only files of checksummed, self-describing blocks (FORMAT.md, "Packs"). A block is one zstd frame that
// holds several objects, laid down in the order they came, and a table that names them; a pack can be indexed again
// from its blocks alone. A pack is named by a random 64-bit number that its header repeats.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/block_memory.h"
#include "store/env.h"
#include "store/object.h"
#include "store/result.h"

namespace mirage {

// A block is closed when it holds this much. On three versions of a Debian tree, 739 MiB of new bytes at zstd level 3:
// 256 KiB 247.9 MiB and 4.3 CPU seconds, 512 KiB 243.4 and 4.0, 1 MiB 239.4 and 3.9; but a random read of 4 KiB pays for
// all of a block.
constexpr size_t kBlockTargetBytes = 512 << 10;
constexpr size_t kMaxBlockRawBytes = 4 << 20;    // what a decoder accepts
constexpr size_t kMaxBlockRows = 65535;          // likewise
constexpr size_t kPackHeaderBytes = 48;          // and behind it the first block
constexpr uint64_t kPackTargetBytes = 64 << 20;
constexpr uint64_t kMaxPackBytes = uint64_t{1} << 30;

using PackNumber = uint64_t;
std::string PackFileName(PackNumber number);  // 16 hex digits + ".pack"
std::optional<PackNumber> ParsePackFileName(std::string_view name);

// Where an object lies: the chunk index's value (FORMAT.md, "Chunk index").
struct Location {
  PackNumber pack = 0;
  uint32_t offset = 0;       // of the block's header in the pack
  uint32_t record_bytes = 0; // header + table + frame
  uint16_t slot = 0;         // which row of the block's table
  bool operator==(const Location&) const = default;
};
std::string EncodeLocation(const Location& location);
Result<Location> DecodeLocation(std::string_view bytes);

struct BlockRow {
  ObjectKind kind = ObjectKind::kChunk;
  uint32_t length = 0;
  ObjectId id;
};
// A block ready to be compressed: rows and their bytes one behind the other.
struct RawBlock {
  std::vector<BlockRow> rows;
  std::string bytes;
};
// A decoded block; `Bytes(slot)` is a view into it. Immutable.
class Block {
 public:
  // `record`: header + table + frame, as read at `offset` of `pack`; EIO with a sentence for anything that does not
  // check: magic, place, lengths, checksum, frame.
  static Result<std::shared_ptr<const Block>> Decode(std::string_view record, PackNumber pack, uint32_t offset);
  const std::vector<BlockRow>& rows() const { return rows_; }
  std::string_view Bytes(size_t slot) const;
  size_t raw_bytes() const { return bytes_.size(); }  // of all its objects
  size_t memory_bytes() const { return bytes_.taken_bytes() + rows_.size() * sizeof(BlockRow) * 2; }

 private:
  std::vector<BlockRow> rows_;
  std::vector<uint32_t> starts_;
  BlockMemory bytes_;
};
// Compresses into a record body that is independent of its place (header and place are put on by Append). Thread-safe.
struct CompressedBlock {
  std::vector<BlockRow> rows;
  uint32_t raw_bytes = 0;
  std::string frame;
};
// E2BIG: no rows, or over the limits.
Result<CompressedBlock> CompressBlock(const RawBlock& block, int zstd_level);

class PackWriter {
 public:
  static Result<std::unique_ptr<PackWriter>> Create(Env& env, const std::string& path, PackNumber number,
                                                    std::string_view library_uuid);
  // Appends; returns the block's location with slot 0. Buffered nowhere.
  Result<Location> Append(const CompressedBlock& block);
  Status Finish();  // trailer, then sync: durable when it returns (its name is not: sync the directory)
  uint64_t size_bytes() const { return size_; }
  PackNumber number() const { return number_; }

 private:
  PackWriter() = default;
  std::unique_ptr<File> file_;
  PackNumber number_ = 0;
  uint64_t size_ = 0;
  uint64_t blocks_ = 0;
  uint64_t announced_ = 0;  // as far as the kernel was told that a sync will come
};

// Walks a pack's blocks in order. `visit` gets the location (slot 0) and the decoded block. Stops at the first damage
// with an EIO that says where; a missing trailer is damage.
Status ScanPack(Env& env, const std::string& path, PackNumber number, std::string_view library_uuid,
                const std::function<Status(const Location&, const Block&)>& visit);
// The same through damage: each is told to `damaged` in a sentence, and the walk goes on at the next block that checks. A
// block's checksum is seeded with its place, so that no run of bytes inside a frame is taken for one. `visit` gets the
// record too that the block was decoded from. Without `damaged` it stops as ScanPack does. `path` is for messages.
using VisitRecord = std::function<Status(const Location&, const Block&, std::string_view record)>;
using PackDamage = std::function<void(std::string what)>;
Status WalkPack(const File& file, const std::string& path, PackNumber number, std::string_view library_uuid,
                const VisitRecord& visit, const PackDamage& damaged);
// A record's block as PackWriter::Append takes it, its frame as it is: `record` was decoded to `block`.
CompressedBlock RecompressedAsIs(const Block& block, std::string_view record);

// The same, but reads the blocks' headers and tables only, and does not look at the frames: some 40 bytes an object.
struct BlockTable {
  std::vector<BlockRow> rows;
  uint32_t raw_bytes = 0;  // of the objects together
};
Status ScanPackTables(Env& env, const std::string& path, PackNumber number, std::string_view library_uuid,
                      const std::function<Status(const Location&, const BlockTable&)>& visit);

}  // namespace mirage
