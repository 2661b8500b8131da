#include "store/compact.h"

#include <algorithm>
#include <future>
#include <thread>

namespace mirage {
namespace {

constexpr size_t kLocationBytes = 20;
constexpr size_t kMovedBytes = kIdKeyBytes + kLocationBytes;
constexpr size_t kPlaceBytes = 8 + 4 + 2 + 4 + ObjectId::kSize;  // pack, offset, slot, bytes of the record; id
constexpr size_t kOrdinalBytes = 4 + 4;                          // which pack, which row of it
constexpr size_t kMaxRows = 4096;                                // as the content writer closes its blocks

template <typename T>
void PutBigEndian(std::string* out, T value) {
  for (size_t i = sizeof value; i-- > 0;) out->push_back(static_cast<char>(value >> (8 * i)));
}
template <typename T>
T TakeBigEndian(std::string_view bytes, size_t at) {
  T value = 0;
  for (size_t i = 0; i < sizeof value; ++i) value = static_cast<T>(value << 8 | static_cast<uint8_t>(bytes[at + i]));
  return value;
}

// Takes objects in order, compresses blocks of them on several threads, and appends them in order.
class BlockWriter {
 public:
  BlockWriter(PackSeries& packs, int level)
      : packs_(packs), level_(level), threads_(std::max(1U, std::thread::hardware_concurrency())) {}
  // Gets each block's rows and place.
  using Written = std::function<Status(const std::vector<BlockRow>&, Location)>;

  Status Add(ObjectKind kind, const ObjectId& id, std::string_view bytes, const Written& written) {
    block_.rows.push_back({kind, static_cast<uint32_t>(bytes.size()), id});
    block_.bytes += bytes;
    if (block_.bytes.size() < kBlockTargetBytes && block_.rows.size() < kMaxRows) return {};
    return Close(written);
  }
  Status Finish(const Written& written) {
    if (!block_.rows.empty()) TRY(Close(written));
    while (!jobs_.empty()) TRY(TakeOne(written));
    return packs_.Seal();
  }

 private:
  Status Close(const Written& written) {
    jobs_.push_back(std::async(std::launch::async, [raw = std::exchange(block_, {}), level = level_] {
      return CompressBlock(raw, level);
    }));
    return jobs_.size() >= threads_ ? TakeOne(written) : Status();
  }
  Status TakeOne(const Written& written) {
    auto compressed = jobs_.front().get();
    jobs_.erase(jobs_.begin());
    if (!compressed) return tl::make_unexpected(std::move(compressed).error());
    ASSIGN_OR_RETURN(const Location location, packs_.Append(*compressed));
    return written(compressed->rows, location);
  }
  PackSeries& packs_;
  const int level_;
  const size_t threads_;
  RawBlock block_;
  std::vector<std::future<Result<CompressedBlock>>> jobs_;
};

Status CheckInterrupted(const std::atomic<bool>* interrupted) {
  if (interrupted && *interrupted) return Fail(EINTR, "interrupted");
  return {};
}

// Live chunks of the packs, by place.
Result<Run> LivePlaces(const Snapshot& snapshot, const Marker& marker, RecordScratch& scratch,
                       const std::set<PackNumber>& packs) {
  RecordSorter places(scratch, kPlaceBytes, scratch.memory_bytes / 4);
  ASSIGN_OR_RETURN(const auto live, RunMerge::Open(marker.live().runs()));
  const auto add = [&](const ObjectId& id, std::string_view value) -> Status {
    ASSIGN_OR_RETURN(const Location at, DecodeLocation(value));
    if (!packs.contains(at.pack)) return {};
    const std::string key = IdKey(ObjectKind::kChunk, id);
    while (live->valid() && live->record() < key) TRY(live->Next());
    if (!live->valid() || live->record() != key) return {};
    std::string record;
    PutBigEndian(&record, at.pack);
    PutBigEndian(&record, at.offset);
    PutBigEndian(&record, at.slot);
    PutBigEndian(&record, at.record_bytes);
    record += id.view();
    return places.Add(record);
  };
  TRY(snapshot.database().ForEach(ObjectKind::kChunk, add));
  return places.Finish();
}

Status RewriteChunks(const Library& library, const Snapshot& snapshot, const Marker& marker, RecordScratch& scratch,
                     const std::set<PackNumber>& packs, int level, const std::atomic<bool>* interrupted,
                     Compaction* compaction) {
  ASSIGN_OR_RETURN(const Run places, LivePlaces(snapshot, marker, scratch, packs));
  RecordSorter moved(scratch, kMovedBytes, scratch.memory_bytes / 4);
  const BlockWriter::Written written = [&](const std::vector<BlockRow>& rows, Location location) -> Status {
    for (size_t slot = 0; slot < rows.size(); ++slot) {
      location.slot = static_cast<uint16_t>(slot);
      TRY(moved.Add(IdKey(ObjectKind::kChunk, rows[slot].id) + EncodeLocation(location)));
    }
    return {};
  };
  BlockWriter writer(*compaction->chunk_packs, level);
  RecordRun::Cursor place(*places);
  std::shared_ptr<const Block> block;
  Location at;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, place.Next());
    if (!more) break;
    const Location next{.pack = TakeBigEndian<uint64_t>(place.record(), 0),
                        .offset = TakeBigEndian<uint32_t>(place.record(), 8),
                        .record_bytes = TakeBigEndian<uint32_t>(place.record(), 14),
                        .slot = TakeBigEndian<uint16_t>(place.record(), 12)};
    const ObjectId id = *ObjectId::FromBytes(place.record().substr(18));
    if (block == nullptr || next.pack != at.pack || next.offset != at.offset) {
      TRY(CheckInterrupted(interrupted));
      ASSIGN_OR_RETURN(block, library.chunks().ReadBlock(next));
      at = next;
    }
    if (next.slot >= block->rows().size() || HashBytes(block->Bytes(next.slot)) != id) {
      return Fail(EIO, "pack {}, block at {}: row {} is not chunk {}", PackFileName(next.pack), next.offset, next.slot, id.Hex());
    }
    TRY(writer.Add(ObjectKind::kChunk, id, block->Bytes(next.slot), written));
  }
  TRY(writer.Finish(written));
  ASSIGN_OR_RETURN(compaction->chunks, moved.Finish());
  return {};
}

// Which rows of the packs are live, by pack and row.
Result<Run> LiveRows(const Library& library, const Marker& marker, RecordScratch& scratch,
                     const std::vector<PackNumber>& packs) {
  RecordSorter rows(scratch, kIdKeyBytes + kOrdinalBytes, scratch.memory_bytes / 4);
  for (size_t i = 0; i < packs.size(); ++i) {
    uint32_t ordinal = 0;
    const auto add = [&](const Location&, const BlockTable& table) -> Status {
      for (const BlockRow& row : table.rows) {
        std::string record = IdKey(row.kind, row.id);
        PutBigEndian(&record, static_cast<uint32_t>(i));
        PutBigEndian(&record, ordinal++);
        TRY(rows.Add(record));
      }
      return {};
    };
    TRY(ScanPackTables(library.env(), library.packs_path() + "/" + PackFileName(packs[i]), packs[i],
                       library.format().uuid, add));
  }
  ASSIGN_OR_RETURN(const Run by_key, rows.Finish());
  RecordSorter ordinals(scratch, kOrdinalBytes, scratch.memory_bytes / 4);
  ASSIGN_OR_RETURN(const auto live, RunMerge::Open(marker.live().runs()));
  RecordRun::Cursor row(*by_key);
  std::string last;  // an object in several of the packs is written once
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, row.Next());
    if (!more) break;
    const std::string_view key = row.record().substr(0, kIdKeyBytes);
    while (live->valid() && live->record() < key) TRY(live->Next());
    if (!live->valid() || live->record() != key || key == last) continue;
    last = key;
    TRY(ordinals.Add(row.record().substr(kIdKeyBytes)));
  }
  return ordinals.Finish();
}

Status RewriteObjects(const Library& library, const Marker& marker, RecordScratch& scratch,
                      const std::vector<PackNumber>& packs, int level, const std::atomic<bool>* interrupted,
                      Compaction* compaction) {
  ASSIGN_OR_RETURN(const Run rows, LiveRows(library, marker, scratch, packs));
  RecordSorter written_keys(scratch, kIdKeyBytes, scratch.memory_bytes / 4);
  const BlockWriter::Written written = [](const std::vector<BlockRow>&, const Location&) { return Status(); };
  BlockWriter writer(*compaction->object_packs, level);
  RecordRun::Cursor wanted(*rows);
  for (size_t i = 0; i < packs.size(); ++i) {
    uint32_t ordinal = 0;
    const auto rewrite = [&](const Location& location, const Block& block) -> Status {
      TRY(CheckInterrupted(interrupted));
      for (size_t slot = 0; slot < block.rows().size(); ++slot, ++ordinal) {
        std::string here;
        PutBigEndian(&here, static_cast<uint32_t>(i));
        PutBigEndian(&here, ordinal);
        ASSIGN_OR_RETURN(const bool any, wanted.Seek(here));
        if (!any || wanted.record() != here) continue;
        const BlockRow& row = block.rows()[slot];
        // A content's list is proved by the content alone.
        if (row.kind != ObjectKind::kContent && HashBytes(block.Bytes(slot)) != row.id) {
          return Fail(EIO, "pack {}, block at {}: row {} does not hash to its id", PackFileName(packs[i]),
                      location.offset, slot);
        }
        TRY(writer.Add(row.kind, row.id, block.Bytes(slot), written));
        TRY(written_keys.Add(IdKey(row.kind, row.id)));
      }
      return {};
    };
    TRY(ScanPack(library.env(), library.packs_path() + "/" + PackFileName(packs[i]), packs[i], library.format().uuid,
                 rewrite));
  }
  TRY(writer.Finish(written));
  ASSIGN_OR_RETURN(compaction->objects, written_keys.Finish());
  return {};
}

}  // namespace

std::vector<PackUse> PacksToRewrite(const std::vector<PackUse>& packs, int level, uint64_t batch_bytes) {
  std::vector<PackUse> chosen;
  for (const bool chunks : {true, false}) {
    const auto is_small = [&](const PackUse& pack) { return pack.chunks == chunks && pack.file.bytes < kSmallPackBytes; };
    const bool fold = std::count_if(packs.begin(), packs.end(), is_small) > 1;
    for (const PackUse& pack : packs) {
      if (pack.chunks != chunks) continue;
      if (2 * pack.live_rows < pack.rows || pack.level < level || (fold && is_small(pack))) chosen.push_back(pack);
    }
  }
  const auto live_share = [](const PackUse& pack) {
    return static_cast<double>(pack.live_rows) / static_cast<double>(std::max<uint64_t>(pack.rows, 1));
  };
  std::stable_sort(chosen.begin(), chosen.end(),
                   [&](const PackUse& a, const PackUse& b) { return live_share(a) < live_share(b); });
  uint64_t bytes = 0;
  size_t count = 0;
  while (count < chosen.size() && (count == 0 || bytes + chosen[count].file.bytes <= batch_bytes)) {
    bytes += chosen[count++].file.bytes;
  }
  chosen.resize(count);
  return chosen;
}

Result<Location> MovedLocation(std::string_view record) { return DecodeLocation(record.substr(kIdKeyBytes)); }

Result<Compaction> RewritePacks(const Library& library, const Snapshot& snapshot, const Marker& marker,
                                RecordScratch& scratch, const std::vector<PackUse>& packs, int level,
                                const std::atomic<bool>* interrupted) {
  Compaction compaction;
  compaction.level = level;
  compaction.chunk_packs = std::make_unique<PackSeries>(library.env(), scratch.directory, library.format().uuid);
  compaction.object_packs = std::make_unique<PackSeries>(library.env(), scratch.directory, library.format().uuid);
  std::set<PackNumber> chunk_packs;
  std::vector<PackNumber> object_packs;
  for (const PackUse& pack : packs) {
    compaction.packs.insert(pack.file.number);
    compaction.old_bytes += pack.file.bytes;
    if (pack.chunks) {
      chunk_packs.insert(pack.file.number);
    } else {
      object_packs.push_back(pack.file.number);
    }
  }
  TRY(RewriteChunks(library, snapshot, marker, scratch, chunk_packs, level, interrupted, &compaction));
  TRY(RewriteObjects(library, marker, scratch, object_packs, level, interrupted, &compaction));
  compaction.new_bytes = compaction.chunk_packs->bytes() + compaction.object_packs->bytes();
  return compaction;
}

}  // namespace mirage
