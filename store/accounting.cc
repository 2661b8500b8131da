#include "store/accounting.h"

#include <optional>

#include "store/mark.h"

namespace mirage {
namespace {

constexpr size_t kOwnedBytes = kIdKeyBytes + 4;     // key, owner
constexpr size_t kPlacedBytes = 8 + 4 + 2 + 4 + 1;  // pack, offset, slot; owner, whether it is the only one
// In the order of their keys.
constexpr ObjectKind kObjectKinds[] = {ObjectKind::kInspection, ObjectKind::kLinks, ObjectKind::kContent, ObjectKind::kManifest,
                                       ObjectKind::kContentNode, ObjectKind::kTree, ObjectKind::kXattrs};

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

// Goes along the keys of a sorted run of (key, owner) and gives the owners of one after the other.
class Owners {
 public:
  explicit Owners(const RecordRun& run) : cursor_(run) {}
  // Of this key, which must not be less than the one before.
  Status Find(std::string_view key, std::vector<uint32_t>* owners) {
    owners->clear();
    ASSIGN_OR_RETURN(bool any, cursor_.Seek(key));
    while (any && cursor_.record().starts_with(key)) {
      owners->push_back(TakeBigEndian<uint32_t>(cursor_.record(), kIdKeyBytes));
      ASSIGN_OR_RETURN(any, cursor_.Next());
    }
    return {};
  }

 private:
  RecordRun::Cursor cursor_;
};

class Accountant {
 public:
  Accountant(const Library& library, const Snapshot& snapshot, RecordScratch& scratch)
      : library_(library), snapshot_(snapshot), scratch_(scratch) {}

  Result<Accounting> Run(const std::vector<std::vector<ObjectId>>& owners) {
    accounting_.owners.resize(owners.size());
    RecordSorter owned(scratch_, kOwnedBytes, scratch_.memory_bytes / 4);
    for (size_t i = 0; i < owners.size(); ++i) TRY(AddOwner(static_cast<uint32_t>(i), owners[i], &owned));
    ASSIGN_OR_RETURN(const auto run, owned.Finish());
    TRY(CountChunks(*run));
    TRY(CountObjects(*run));
    return std::move(accounting_);
  }

 private:
  Status AddOwner(uint32_t owner, const std::vector<ObjectId>& versions, RecordSorter* owned) {
    for (const ObjectId& version : versions) TRY(CheckContents(snapshot_, version));
    Marker marker(scratch_);
    TRY(marker.Add(snapshot_, versions));
    ASSIGN_OR_RETURN(const auto live, RunMerge::Open(marker.live().runs()));
    while (live->valid()) {
      std::string record(live->record());
      PutBigEndian(&record, owner);
      TRY(owned->Add(record));
      TRY(live->Next());
    }
    return {};
  }

  Status CountChunks(const RecordRun& owned) {
    RecordSorter placed(scratch_, kPlacedBytes, scratch_.memory_bytes / 4);
    Owners owners_of(owned);
    std::vector<uint32_t> owners;
    const auto place_chunk = [&](const ObjectId& id, std::string_view value) -> Status {
      TRY(owners_of.Find(IdKey(ObjectKind::kChunk, id), &owners));
      if (owners.empty()) return {};
      ASSIGN_OR_RETURN(const Location at, DecodeLocation(value));
      for (const uint32_t owner : owners) {
        std::string record;
        PutBigEndian(&record, at.pack);
        PutBigEndian(&record, at.offset);
        PutBigEndian(&record, at.slot);
        PutBigEndian(&record, owner);
        record.push_back(owners.size() == 1 ? '\1' : '\0');
        TRY(placed.Add(record));
      }
      return {};
    };
    TRY(snapshot_.database().ForEach(ObjectKind::kChunk, place_chunk));
    ASSIGN_OR_RETURN(const auto places, placed.Finish());
    RecordRun::Cursor place(*places);
    ASSIGN_OR_RETURN(bool more, place.Next());
    while (more) {
      const auto pack = TakeBigEndian<uint64_t>(place.record(), 0);
      TRY(ScanPackTables(library_.env(), library_.packs_path() + "/" + PackFileName(pack), pack, library_.format().uuid,
                         [&](const Location& at, const BlockTable& table) -> Status {
                           std::optional<uint16_t> last;
                           while (more && TakeBigEndian<uint64_t>(place.record(), 0) == pack &&
                                  TakeBigEndian<uint32_t>(place.record(), 8) == at.offset) {
                             const auto slot = TakeBigEndian<uint16_t>(place.record(), 12);
                             if (slot >= table.rows.size()) {
                               return Fail(EIO, "pack {}, block at {}: the index names row {}, which is not there; run fsck",
                                           PackFileName(pack), at.offset, slot);
                             }
                             const uint64_t length = table.rows[slot].length;
                             const uint64_t stored = uint64_t{at.record_bytes} * length / table.raw_bytes;
                             OwnerUsage& owner = accounting_.owners.at(TakeBigEndian<uint32_t>(place.record(), 14));
                             AddChunk(place.record()[18] != 0 ? &owner.exclusive : &owner.shared, length, stored);
                             if (last != slot) AddChunk(&accounting_.live, length, stored);
                             last = slot;
                             ASSIGN_OR_RETURN(more, place.Next());
                           }
                           return {};
                         }));
      if (more && TakeBigEndian<uint64_t>(place.record(), 0) == pack) {
        return Fail(EIO, "pack {}: the index names a block that is not there; run fsck", PackFileName(pack));
      }
    }
    return {};
  }
  static void AddChunk(Usage* usage, uint64_t length, uint64_t stored) {
    ++usage->chunks;
    usage->chunk_bytes += length;
    usage->stored_bytes += stored;
  }

  Status CountObjects(const RecordRun& owned) {
    Owners owners_of(owned);
    std::vector<uint32_t> owners;
    const auto add = [](Usage* usage, size_t bytes) {
      ++usage->objects;
      usage->object_bytes += bytes;
    };
    for (const ObjectKind kind : kObjectKinds) {
      const auto count = [&](const ObjectId& id, std::string_view value) -> Status {
        TRY(owners_of.Find(IdKey(kind, id), &owners));
        for (const uint32_t i : owners) {
          OwnerUsage& owner = accounting_.owners.at(i);
          add(owners.size() == 1 ? &owner.exclusive : &owner.shared, value.size());
        }
        if (!owners.empty()) add(&accounting_.live, value.size());
        return {};
      };
      TRY(snapshot_.database().ForEach(kind, count));
    }
    return {};
  }

  const Library& library_;
  const Snapshot& snapshot_;
  RecordScratch& scratch_;
  Accounting accounting_;
};

}  // namespace

Result<Accounting> AccountFor(const Library& library, const Snapshot& snapshot,
                              const std::vector<std::vector<ObjectId>>& owners, const std::string& scratch_directory,
                              size_t memory_bytes) {
  RecordScratch scratch(library.env(), scratch_directory, memory_bytes);
  return Accountant(library, snapshot, scratch).Run(owners);
}

}  // namespace mirage
