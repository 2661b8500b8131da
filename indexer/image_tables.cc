#include "indexer/image_tables.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace mirage {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr size_t kPieceBytes = 1 << 20;             // of a table, in memory
constexpr uint64_t kMaxL1Entries = 1 << 22;         // 2 PiB at a qcow2's usual cluster size
constexpr uint64_t kMaxDirectoryEntries = 1 << 22;  // of a vmdk: 128 TiB at the usual grain size
constexpr uint64_t kMaxVhdEntries = 1 << 22;        // 2 TiB, a vhd's limit, in blocks of 512 KiB

tl::unexpected<Error> Damaged(std::string_view format) { return Fail(EINVAL, "the {} header is damaged", format); }

// Calls with each piece of a table that lies in the file. What lies behind the file's end is the caller's to refuse.
void ForEachPiece(const ImageFile& file, uint64_t offset, uint64_t length,
                  const std::function<void(std::string_view)>& visit) {
  while (length > 0) {
    const auto piece = static_cast<size_t>(std::min<uint64_t>(length, kPieceBytes));
    if (file.HasData(offset, piece)) visit(file.Read(offset, piece));
    offset += piece;
    length -= piece;
  }
}

// No two entries of a directory mean one table: else a small file could be read for days.
Status CheckDistinct(std::vector<uint64_t>& offsets, std::string_view format) {
  std::sort(offsets.begin(), offsets.end());
  if (std::adjacent_find(offsets.begin(), offsets.end()) != offsets.end()) return Damaged(format);
  return {};
}

}  // namespace

// Offsets and features as in QEMU's docs/interop/qcow2.txt.
Result<uint64_t> Qcow2Length(const ImageFile& file) {
  const std::string header = file.Read(0, 112);
  const uint64_t incompatible = Big32(header, 4) >= 3 ? Big64(header, 72) : 0;
  const uint32_t cluster_bits = Big32(header, 20);
  if (cluster_bits < 9 || cluster_bits > 21) return Damaged("qcow2");
  const uint64_t cluster = uint64_t{1} << cluster_bits;
  const uint64_t l1_entries = Big32(header, 36), l1_offset = Big64(header, 40);
  if (l1_entries > kMaxL1Entries || l1_offset % cluster != 0 || l1_offset > INT64_MAX) return Damaged("qcow2");
  constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;
  uint64_t needed = l1_offset + l1_entries * 8;
  if (needed > file.size()) return needed;
  const bool external_data = (incompatible & 4) != 0;
  const size_t entry_bytes = (incompatible & 16) != 0 ? 16 : 8;
  std::vector<uint64_t> tables;
  ForEachPiece(file, l1_offset, l1_entries * 8, [&](std::string_view l1) {
    for (size_t i = 0; i + 8 <= l1.size(); i += 8) {
      if (const uint64_t l2 = Big64(l1, i) & kOffsetMask; l2 != 0) tables.push_back(l2);
    }
  });
  TRY(CheckDistinct(tables, "qcow2"));
  for (const uint64_t l2_offset : tables) {
    needed = std::max(needed, l2_offset + cluster);
    if (needed > file.size()) return needed;
    if (external_data) continue;
    ForEachPiece(file, l2_offset, cluster, [&](std::string_view l2) {
      for (size_t j = 0; j + entry_bytes <= l2.size(); j += entry_bytes) {
        const uint64_t entry = Big64(l2, j);
        const bool compressed = (entry >> 62 & 1) != 0;
        if (!compressed && (entry & kOffsetMask) != 0) needed = std::max(needed, (entry & kOffsetMask) + 1);
      }
    });
  }
  return needed;
}

// As in VMware's Virtual Disk Format 5.0: a directory of tables of grains, all in sectors.
Result<uint64_t> VmdkLength(const ImageFile& file) {
  constexpr uint64_t kAtEnd = ~uint64_t{0};
  std::string header = file.Read(0, kSectorBytes);
  if (Little64(header, 56) == kAtEnd) {  // written as a stream: the directory's place is known at its end alone
    if (file.size() < 3 * kSectorBytes) return 3 * kSectorBytes;
    header = file.Read(file.size() - 2 * kSectorBytes, kSectorBytes);
    if (!header.starts_with("KDMV")) return Fail(EINVAL, "the vmdk image is truncated: it has no end; copy it again");
  }
  const uint64_t capacity = Little64(header, 12), grain = Little64(header, 20), entries = Little32(header, 44),
                 directory = Little64(header, 56);
  if (grain == 0 || grain > 1 << 20 || entries == 0 || entries > 512 || capacity > INT64_MAX / kSectorBytes ||
      directory > INT64_MAX / kSectorBytes) {
    return Damaged("vmdk");
  }
  const bool compressed = (Little32(header, 8) & 0x10000) != 0;
  const uint64_t tables = capacity / (grain * entries) + (capacity % (grain * entries) != 0 ? 1 : 0);
  if (tables > kMaxDirectoryEntries) return Damaged("vmdk");
  uint64_t needed = directory * kSectorBytes + tables * 4;
  if (needed > file.size()) return needed;
  std::vector<uint64_t> offsets;
  ForEachPiece(file, directory * kSectorBytes, tables * 4, [&](std::string_view piece) {
    for (size_t i = 0; i + 4 <= piece.size(); i += 4) {
      if (const uint32_t sector = Little32(piece, i); sector != 0) offsets.push_back(sector * kSectorBytes);
    }
  });
  TRY(CheckDistinct(offsets, "vmdk"));
  for (const uint64_t offset : offsets) {
    needed = std::max(needed, offset + entries * 4);
    if (needed > file.size()) return needed;
    ForEachPiece(file, offset, entries * 4, [&](std::string_view table) {
      for (size_t i = 0; i + 4 <= table.size(); i += 4) {
        const uint64_t sector = Little32(table, i);  // 1: a grain of zeros
        if (sector <= 1) continue;
        const uint64_t place = sector * kSectorBytes;
        // Of a compressed one its place in the disk comes first, and its length.
        const uint64_t length = compressed ? uint64_t{12} + Little32(file.Read(place + 8, 4), 0) : 1;
        needed = std::max(needed, place + length);
      }
    });
  }
  return needed;
}

// As QEMU's block/vdi.c: a map of blocks, which lie one behind the other.
Result<uint64_t> VdiLength(const ImageFile& file) {
  const std::string header = file.Read(0, kSectorBytes);
  if (header.size() < kSectorBytes) return kSectorBytes;
  const uint64_t map = Little32(header, 0x154), data = Little32(header, 0x158), disk = Little64(header, 0x170),
                 block = Little32(header, 0x178), blocks = Little32(header, 0x180), allocated = Little32(header, 0x184);
  if (block == 0 || allocated > blocks || disk > blocks * block) return Damaged("vdi");
  return std::max(map + blocks * 4, data + allocated * block);
}

// As in Microsoft's Virtual Hard Disk Image Format Specification: a footer, and before a dynamic one's table its copy.
Result<uint64_t> VhdLength(const ImageFile& file) {
  std::string footer = file.Read(0, kSectorBytes);
  const bool first = footer.starts_with("conectix");
  if (!first) footer = file.Read(file.size() - std::min(file.size(), kSectorBytes), kSectorBytes);
  if (const uint32_t type = Big32(footer, 60); type == 2) {  // fixed
    const uint64_t size = Big64(footer, 48);
    if (size > INT64_MAX) return Damaged("vhd");
    return size + kSectorBytes;
  }
  const uint64_t place = Big64(footer, 16);
  if (place > INT64_MAX) return Damaged("vhd");
  const std::string header = file.Read(place, 1024);
  if (header.size() < 1024) return place + 1024;
  const uint64_t table = Big64(header, 16), entries = Big32(header, 28), block = Big32(header, 32);
  // Before each block lies a map of its sectors, in whole sectors.
  const uint64_t map = (block / kSectorBytes / 8 + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
  if (!header.starts_with("cxsparse") || entries > kMaxVhdEntries || table > INT64_MAX) return Damaged("vhd");
  uint64_t needed = table + entries * 4;
  if (needed > file.size()) return needed;
  ForEachPiece(file, table, entries * 4, [&](std::string_view piece) {
    for (size_t i = 0; i + 4 <= piece.size(); i += 4) {
      const uint32_t sector = Big32(piece, i);
      if (sector != ~uint32_t{0}) needed = std::max(needed, sector * kSectorBytes + map + block);
    }
  });
  return needed;
}

// As in Microsoft's [MS-VHDX]: a table of regions, one of which is the table of blocks.
Result<uint64_t> VhdxLength(const ImageFile& file) {
  constexpr uint64_t kFirstTable = 192 << 10, kSecondTable = 256 << 10, kHeaderSection = 1 << 20;
  constexpr std::string_view kBlocks("\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08", 16),
      kMetadata("\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e", 16),
      kParameters("\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", 16);
  constexpr size_t kMaxRegions = 2047, kMaxItems = 1024, kRecordBytes = 32;
  if (file.size() < kHeaderSection) return kHeaderSection;
  std::string regions = file.Read(kFirstTable, 64 << 10);
  if (!regions.starts_with("regi")) regions = file.Read(kSecondTable, 64 << 10);
  const size_t count = Little32(regions, 8);
  if (!regions.starts_with("regi") || count > kMaxRegions) return Damaged("vhdx");
  uint64_t needed = kHeaderSection, table = 0, table_bytes = 0, block = 0;
  for (size_t i = 0; i < count; ++i) {
    const std::string_view region = std::string_view(regions).substr(16 + i * kRecordBytes, kRecordBytes);
    const uint64_t offset = Little64(region, 16), length = Little32(region, 24);
    if (offset > INT64_MAX) return Damaged("vhdx");
    needed = std::max(needed, offset + length);
    if (needed > file.size()) return needed;
    if (region.starts_with(kBlocks)) {
      table = offset;
      table_bytes = length;
    }
    if (!region.starts_with(kMetadata)) continue;
    const std::string metadata = file.Read(offset, 64 << 10);
    for (size_t k = 1; k <= std::min<size_t>(Little32(metadata, 8) >> 16, kMaxItems); ++k) {
      const std::string_view item = std::string_view(metadata).substr(k * kRecordBytes, kRecordBytes);
      if (item.starts_with(kParameters)) block = Little32(file.Read(offset + Little32(item, 16), 4), 0);
    }
  }
  ForEachPiece(file, table, table_bytes, [&](std::string_view piece) {
    for (size_t at = 0; at + 8 <= piece.size(); at += 8) {
      const uint64_t entry = Little64(piece, at), place = entry >> 20 << 20;
      const bool present = (entry & 7) == 6 || (entry & 7) == 7;
      if (present) needed = std::max(needed, std::min(place, uint64_t{INT64_MAX}) + block);
    }
  });
  return needed;
}

}  // namespace mirage
