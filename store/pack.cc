#include "store/pack.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>

#include <xxhash.h>
#include <zstd.h>

#include "store/block_prefetcher.h"

namespace mirage {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie in memory");

constexpr std::string_view kPackMagic = "MIRAGEPK";
constexpr uint32_t kPackVersion = 1;
constexpr size_t kUuidBytes = 16;
constexpr uint32_t kBlockMagic = 0x4b4c424d;    // "MBLK"
constexpr uint32_t kTrailerMagic = 0x444e454d;  // "MEND"
constexpr size_t kBlockHeaderBytes = 32;
constexpr size_t kChecksumOffset = 16;  // in a block's header
constexpr size_t kRowBytes = 40;
constexpr size_t kTrailerBytes = 32;
constexpr size_t kLocationBytes = 20;
constexpr uint64_t kAnnounceBytes = 4 << 20;  // a sync at the end would wait for all of it
const size_t kMaxFrameBytes = ZSTD_COMPRESSBOUND(kMaxBlockRawBytes);
const size_t kMaxRecordBytes = kBlockHeaderBytes + kMaxBlockRows * kRowBytes + kMaxFrameBytes;

template <typename T>
void Append(std::string* out, T number) {
  char bytes[sizeof number];
  std::memcpy(bytes, &number, sizeof number);
  out->append(bytes, sizeof number);
}

template <typename T>
std::string EncodeNumber(T number) {
  std::string bytes;
  Append(&bytes, number);
  return bytes;
}

template <typename T>
T Get(std::string_view bytes, size_t offset) {
  T number;
  std::memcpy(&number, bytes.data() + offset, sizeof number);
  return number;
}

bool IsKnownKind(uint8_t kind) {
  return std::find(kObjectKinds.begin(), kObjectKinds.end(), static_cast<ObjectKind>(kind)) != kObjectKinds.end();
}

struct BlockHeader {
  uint32_t rows, raw_bytes, frame_bytes;
  size_t record_bytes() const { return kBlockHeaderBytes + size_t{rows} * kRowBytes + frame_bytes; }
};

std::string Where(PackNumber pack, uint64_t offset) {
  return fmt::format("pack {}, block at {}", PackFileName(pack), offset);
}

// Limits only: the checksum needs the whole record.
Result<BlockHeader> DecodeBlockHeader(std::string_view bytes, PackNumber pack, uint64_t offset) {
  if (bytes.size() < kBlockHeaderBytes) return Fail(EIO, "{}: truncated", Where(pack, offset));
  if (Get<uint32_t>(bytes, 0) != kBlockMagic) return Fail(EIO, "{}: no block begins here", Where(pack, offset));
  const BlockHeader header{Get<uint32_t>(bytes, 4), Get<uint32_t>(bytes, 8), Get<uint32_t>(bytes, 12)};
  if (header.rows == 0 || header.rows > kMaxBlockRows || header.raw_bytes > kMaxBlockRawBytes ||
      header.frame_bytes > kMaxFrameBytes || Get<uint64_t>(bytes, 24) != 0) {
    return Fail(EIO, "{}: a header with impossible sizes", Where(pack, offset));
  }
  return header;
}

// Seeded with the block's place, so that a block written or read at a wrong place does not check.
uint64_t BlockChecksum(std::string_view head, std::string_view body, PackNumber pack, uint64_t offset) {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_64bits_reset_withSeed(state.get(), pack ^ offset);
  XXH3_64bits_update(state.get(), head.data(), kChecksumOffset);
  XXH3_64bits_update(state.get(), head.data() + kChecksumOffset + 8, head.size() - kChecksumOffset - 8);
  XXH3_64bits_update(state.get(), body.data(), body.size());
  return XXH3_64bits_digest(state.get());
}

std::string EncodePackHeader(PackNumber number, std::string_view uuid) {
  std::string header(kPackMagic);
  Append(&header, kPackVersion);
  Append(&header, uint32_t{0});
  Append(&header, number);
  header.append(uuid);
  Append(&header, uint64_t{XXH3_64bits(header.data(), header.size())});
  return header;
}

std::string EncodeTrailer(PackNumber number, uint64_t blocks, uint64_t offset) {
  std::string trailer;
  Append(&trailer, kTrailerMagic);
  Append(&trailer, uint32_t{0});
  Append(&trailer, blocks);
  Append(&trailer, offset);
  Append(&trailer, uint64_t{XXH3_64bits_withSeed(trailer.data(), trailer.size(), number ^ offset)});
  return trailer;
}

// Making a context costs more than a small block; one a thread is kept.
//
// Level 2, the default, is given other parameters than zstd's own at blocks of 512 KiB: matches of five bytes, as at
// level 2 for smaller ones, by the fast strategy with a table of 32 KiB, which stays in the first-level cache. It is 16 %
// faster on programs, 21 % on a log, and 1 % larger.
ZSTD_CCtx* CompressionContext(int level) {
  thread_local const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(), &ZSTD_freeCCtx);
  ZSTD_CCtx* const cctx = context.get();
  ZSTD_CCtx_reset(cctx, ZSTD_reset_session_and_parameters);
  ZSTD_CCtx_setParameter(cctx, ZSTD_c_compressionLevel, level);
  if (level == 2) {
    ZSTD_CCtx_setParameter(cctx, ZSTD_c_strategy, ZSTD_fast);
    ZSTD_CCtx_setParameter(cctx, ZSTD_c_minMatch, 5);
    ZSTD_CCtx_setParameter(cctx, ZSTD_c_hashLog, 13);
  }
  return cctx;
}
ZSTD_DCtx* DecompressionContext() {
  thread_local const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), &ZSTD_freeDCtx);
  return context.get();
}

}  // namespace

std::string PackFileName(PackNumber number) { return fmt::format("{:016x}.pack", number); }

std::optional<PackNumber> ParsePackFileName(std::string_view name) {
  PackNumber number = 0;
  const char* begin = name.data();
  if (name.size() != 16 + 5 || std::from_chars(begin, begin + 16, number, 16).ec != std::errc{}) return std::nullopt;
  if (PackFileName(number) != name) return std::nullopt;  // capitals, signs
  return number;
}

std::string EncodeLocation(const Location& location) {
  std::string value;
  value.reserve(kLocationBytes);
  Append(&value, location.pack);
  Append(&value, location.offset);
  Append(&value, location.record_bytes);
  Append(&value, location.slot);
  Append(&value, uint16_t{0});
  return value;
}

Result<Location> DecodeLocation(std::string_view bytes) {
  if (bytes.size() != kLocationBytes) return Fail(EIO, "chunk index: a value of {} bytes", bytes.size());
  const Location location{.pack = Get<uint64_t>(bytes, 0),
                          .offset = Get<uint32_t>(bytes, 8),
                          .record_bytes = Get<uint32_t>(bytes, 12),
                          .slot = Get<uint16_t>(bytes, 16)};
  if (Get<uint16_t>(bytes, 18) != 0 || location.offset < kPackHeaderBytes ||
      location.record_bytes < kBlockHeaderBytes + kRowBytes || location.record_bytes > kMaxRecordBytes ||
      uint64_t{location.offset} + location.record_bytes > kMaxPackBytes || location.slot >= kMaxBlockRows) {
    return Fail(EIO, "chunk index: an impossible place in pack {}", PackFileName(location.pack));
  }
  return location;
}

Result<std::shared_ptr<const Block>> Block::Decode(std::string_view record, PackNumber pack, uint32_t offset) {
  ASSIGN_OR_RETURN(const BlockHeader header, DecodeBlockHeader(record, pack, offset));
  if (record.size() != header.record_bytes()) {
    return Fail(EIO, "{}: {} bytes where the header says {}", Where(pack, offset), record.size(),
                header.record_bytes());
  }
  if (BlockChecksum(record.substr(0, kBlockHeaderBytes), record.substr(kBlockHeaderBytes), pack, offset) !=
      Get<uint64_t>(record, kChecksumOffset)) {
    return Fail(EIO, "{}: the checksum does not match", Where(pack, offset));
  }
  auto block = std::make_shared<Block>();
  block->rows_.reserve(header.rows);
  block->starts_.reserve(header.rows);
  uint64_t total = 0;
  for (uint32_t i = 0; i < header.rows; ++i) {
    const std::string_view row = record.substr(kBlockHeaderBytes + i * kRowBytes, kRowBytes);
    const auto length = Get<uint32_t>(row, 4);
    const auto kind = static_cast<uint8_t>(row[0]);
    if (!IsKnownKind(kind) || row[1] != 0 || row[2] != 0 || row[3] != 0 || length == 0) {
      return Fail(EIO, "{}: row {} of its table is not valid", Where(pack, offset), i);
    }
    block->starts_.push_back(static_cast<uint32_t>(total));
    block->rows_.push_back({static_cast<ObjectKind>(kind), length, *ObjectId::FromBytes(row.substr(8))});
    total += length;
    if (total > header.raw_bytes) break;
  }
  if (total != header.raw_bytes) return Fail(EIO, "{}: the rows do not add up to its size", Where(pack, offset));

  const std::string_view frame = record.substr(record.size() - header.frame_bytes);
  if (ZSTD_getFrameContentSize(frame.data(), frame.size()) != header.raw_bytes ||
      ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size()) {
    return Fail(EIO, "{}: the frame has another size than the header says", Where(pack, offset));
  }
  block->bytes_ = BlockMemory(header.raw_bytes);
  // An error code is a number beyond any size.
  if (ZSTD_decompressDCtx(DecompressionContext(), block->bytes_.data(), header.raw_bytes, frame.data(), frame.size()) !=
      header.raw_bytes) {
    return Fail(EIO, "{}: the frame does not decompress", Where(pack, offset));
  }
  return block;
}

Result<size_t> BlockRecordBytes(std::string_view header, PackNumber pack, uint64_t offset) {
  return DecodeBlockHeader(header, pack, offset).map([](const BlockHeader& decoded) { return decoded.record_bytes(); });
}

std::string_view Block::Bytes(size_t slot) const {
  return {bytes_.data() + starts_.at(slot), rows_.at(slot).length};
}

Result<CompressedBlock> CompressBlock(const RawBlock& block, int zstd_level) {
  if (block.rows.empty() || block.rows.size() > kMaxBlockRows || block.bytes.size() > kMaxBlockRawBytes) {
    return Fail(E2BIG, "a block of {} bytes and {} rows: at most {} and {}", block.bytes.size(), block.rows.size(),
                kMaxBlockRawBytes, kMaxBlockRows);
  }
  CompressedBlock out{.rows = block.rows, .raw_bytes = static_cast<uint32_t>(block.bytes.size()), .frame = {}};
  size_t result = 0;
  out.frame.resize_and_overwrite(ZSTD_compressBound(block.bytes.size()), [&](char* buffer, size_t size) {
    result = ZSTD_compress2(CompressionContext(zstd_level), buffer, size, block.bytes.data(), block.bytes.size());
    return ZSTD_isError(result) ? 0 : result;
  });
  if (ZSTD_isError(result)) return Fail(EIO, "compress a block: {}", ZSTD_getErrorName(result));
  return out;
}

Result<std::unique_ptr<PackWriter>> PackWriter::Create(Env& env, const std::string& path, PackNumber number,
                                                       std::string_view library_uuid) {
  if (library_uuid.size() != kUuidBytes) return Fail(EINVAL, "{}: a library UUID has 16 bytes", path);
  std::unique_ptr<PackWriter> writer(new PackWriter);
  ASSIGN_OR_RETURN(writer->file_, env.Open(path, OpenMode::kCreate));
  TRY(writer->file_->WriteAt(0, EncodePackHeader(number, library_uuid)));
  writer->number_ = number;
  writer->size_ = kPackHeaderBytes;
  return writer;
}

Result<Location> PackWriter::Append(const CompressedBlock& block) {
  const size_t record_bytes = kBlockHeaderBytes + block.rows.size() * kRowBytes + block.frame.size();
  if (size_ + record_bytes + kTrailerBytes > kMaxPackBytes) {
    return Fail(EFBIG, "pack {}: would grow over {} bytes", PackFileName(number_), kMaxPackBytes);
  }
  std::string record;
  record.reserve(record_bytes);
  mirage::Append(&record, kBlockMagic);
  mirage::Append(&record, static_cast<uint32_t>(block.rows.size()));
  mirage::Append(&record, block.raw_bytes);
  mirage::Append(&record, static_cast<uint32_t>(block.frame.size()));
  mirage::Append(&record, uint64_t{0});  // the checksum, when the rest is there
  mirage::Append(&record, uint64_t{0});
  for (const BlockRow& row : block.rows) {
    mirage::Append(&record, static_cast<uint32_t>(row.kind));  // the kind and three zero bytes
    mirage::Append(&record, row.length);
    record.append(row.id.view());
  }
  record.append(block.frame);
  const std::string_view whole = record;
  const uint64_t checksum =
      BlockChecksum(whole.substr(0, kBlockHeaderBytes), whole.substr(kBlockHeaderBytes), number_, size_);
  std::memcpy(record.data() + kChecksumOffset, &checksum, sizeof checksum);
  TRY(file_->WriteAt(size_, record));
  const Location location{.pack = number_,
                          .offset = static_cast<uint32_t>(size_),
                          .record_bytes = static_cast<uint32_t>(record_bytes),
                          .slot = 0};
  size_ += record_bytes;
  ++blocks_;
  if (size_ - announced_ >= kAnnounceBytes) {
    file_->WillSync(announced_, size_ - announced_);
    announced_ = size_;
  }
  return location;
}

Status PackWriter::Finish() {
  TRY(file_->WriteAt(size_, EncodeTrailer(number_, blocks_, size_)));
  TRY(file_->Sync());
  size_ += kTrailerBytes;
  return {};
}

Status ScanPack(Env& env, const std::string& path, PackNumber number, std::string_view library_uuid,
                const std::function<Status(const Location&, const Block&)>& visit) {
  ASSIGN_OR_RETURN(const auto file, env.Open(path, OpenMode::kRead));
  return WalkPack(*file, path, number, library_uuid,
                  [&](const Location& location, const Block& block, std::string_view) { return visit(location, block); },
                  {});
}

namespace {

// The first place at or behind `offset` where bytes stand that a block begins with; `size` if there is none.
Result<uint64_t> FindBlockMagic(const File& file, uint64_t offset, uint64_t size) {
  constexpr size_t kWindowBytes = 1 << 20;
  const std::string magic = EncodeNumber(kBlockMagic);
  std::string bytes;
  for (; offset + kBlockHeaderBytes <= size; offset += kWindowBytes) {
    TRY(file.ReadAt(offset, kWindowBytes + magic.size() - 1, &bytes));
    if (const size_t at = bytes.find(magic); at != std::string::npos) return offset + at;
  }
  return size;
}

// The record of the block at `offset`, read and decoded.
Result<std::shared_ptr<const Block>> ReadRecord(const File& file, PackNumber number, uint64_t offset,
                                                std::string* record) {
  TRY(file.ReadAt(offset, kBlockHeaderBytes, record));
  ASSIGN_OR_RETURN(const BlockHeader header, DecodeBlockHeader(*record, number, offset));
  TRY(file.ReadAt(offset, header.record_bytes(), record));
  return Block::Decode(*record, number, static_cast<uint32_t>(offset));
}

}  // namespace

Status WalkPack(const File& file, const std::string& path, PackNumber number, std::string_view library_uuid,
                const VisitRecord& visit, const PackDamage& damaged) {
  ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  if (size > kMaxPackBytes) return Fail(EIO, "{}: longer than a pack may be", path);
  // Damage is told, or ends the walk.
  const auto tell = [&](std::string what) -> Status {
    if (!damaged) return Fail(EIO, "{}", what);
    damaged(std::move(what));
    return {};
  };
  std::string bytes;
  TRY(file.ReadAt(0, kPackHeaderBytes, &bytes));
  if (bytes != EncodePackHeader(number, library_uuid)) {
    TRY(tell(fmt::format("{}: the header is damaged, or of another pack or library", path)));
  }
  uint64_t offset = kPackHeaderBytes, blocks = 0;
  bool whole = true;
  while (true) {
    TRY(file.ReadAt(offset, kTrailerBytes, &bytes));
    if (bytes.size() >= sizeof kTrailerMagic && Get<uint32_t>(bytes, 0) == kTrailerMagic) {
      const bool right = whole ? bytes == EncodeTrailer(number, blocks, offset)
                               : bytes.size() == kTrailerBytes &&
                                     bytes == EncodeTrailer(number, Get<uint64_t>(bytes, 8), offset);
      if (right) {
        if (size != offset + kTrailerBytes) return tell(fmt::format("{}: bytes behind the trailer", path));
        return {};
      }
      TRY(tell(fmt::format("{}: the trailer is damaged", path)));
      whole = false;
    } else if (bytes.empty()) {
      return tell(fmt::format("{}: ends without a trailer", path));
    } else if (auto block = ReadRecord(file, number, offset, &bytes); block) {
      const Location location{.pack = number,
                              .offset = static_cast<uint32_t>(offset),
                              .record_bytes = static_cast<uint32_t>(bytes.size()),
                              .slot = 0};
      TRY(visit(location, **block, bytes));
      offset += bytes.size();
      ++blocks;
      continue;
    } else if (whole) {  // what follows a damage and is none is not told again
      TRY(tell(fmt::format("{}", block.error().message)));
      whole = false;
    }
    // On at the next block that checks, or at the trailer.
    ASSIGN_OR_RETURN(const uint64_t next, FindBlockMagic(file, offset + 1, size));
    if (next < size) {
      offset = next;
    } else if (size >= kTrailerBytes && size - kTrailerBytes > offset) {
      offset = size - kTrailerBytes;
    } else {
      return {};
    }
  }
}

Status ScanPackTables(Env& env, const std::string& path, PackNumber number, std::string_view library_uuid,
                      const std::function<Status(const Location&, const BlockTable&)>& visit) {
  ASSIGN_OR_RETURN(const auto file, env.Open(path, OpenMode::kRead));
  ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size > kMaxPackBytes) return Fail(EIO, "{}: longer than a pack may be", path);
  std::string bytes;
  TRY(file->ReadAt(0, kPackHeaderBytes, &bytes));
  if (bytes != EncodePackHeader(number, library_uuid)) {
    return Fail(EIO, "{}: the header is damaged, or of another pack or library", path);
  }
  uint64_t offset = kPackHeaderBytes;
  for (uint64_t blocks = 0;; ++blocks) {
    TRY(file->ReadAt(offset, kBlockHeaderBytes, &bytes));
    if (bytes.size() >= sizeof kTrailerMagic && Get<uint32_t>(bytes, 0) == kTrailerMagic) {
      if (bytes != EncodeTrailer(number, blocks, offset)) return Fail(EIO, "{}: the trailer is damaged", path);
      if (size != offset + kTrailerBytes) return Fail(EIO, "{}: bytes behind the trailer", path);
      return {};
    }
    if (bytes.empty()) return Fail(EIO, "{}: ends without a trailer", path);
    ASSIGN_OR_RETURN(const BlockHeader header, DecodeBlockHeader(bytes, number, offset));
    TRY(file->ReadAt(offset + kBlockHeaderBytes, size_t{header.rows} * kRowBytes, &bytes));
    BlockTable table{.rows = {}, .raw_bytes = header.raw_bytes};
    table.rows.reserve(header.rows);
    for (size_t at = 0; at < bytes.size(); at += kRowBytes) {
      const std::string_view row = std::string_view(bytes).substr(at, kRowBytes);
      if (row.size() < kRowBytes || !IsKnownKind(static_cast<uint8_t>(row[0]))) break;
      table.rows.push_back(
          {static_cast<ObjectKind>(row[0]), Get<uint32_t>(row, 4), *ObjectId::FromBytes(row.substr(8))});
    }
    if (table.rows.size() != header.rows) return Fail(EIO, "{}: its table is not valid", Where(number, offset));
    const Location location{.pack = number,
                            .offset = static_cast<uint32_t>(offset),
                            .record_bytes = static_cast<uint32_t>(header.record_bytes()),
                            .slot = 0};
    TRY(visit(location, table));
    offset += header.record_bytes();
  }
}

CompressedBlock RecompressedAsIs(const Block& block, std::string_view record) {
  return {.rows = block.rows(),
          .raw_bytes = static_cast<uint32_t>(block.raw_bytes()),
          .frame = std::string(record.substr(kBlockHeaderBytes + block.rows().size() * kRowBytes))};
}

}  // namespace mirage
