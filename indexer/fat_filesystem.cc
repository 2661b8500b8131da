#include "indexer/fat_filesystem.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <optional>
#include <utility>

#include "indexer/fat_directory.h"
#include "store/encoding.h"

namespace mirage {
namespace {

constexpr size_t kBootBytes = 512;
constexpr uint32_t kFirstCluster = 2;                                        // numbers 0 and 1 are no clusters
constexpr uint32_t kMost12 = 0xff4, kMost16 = 0xfff4, kMost32 = 0x0ffffff6;  // clusters, as the kernel has it
constexpr uint64_t kMaxDirectoryBytes = uint64_t{65536} * kFatEntryBytes;    // no writer makes a longer one
constexpr uint8_t kDirtyBits = 3;                                            // not unmounted; errors were seen
constexpr size_t kPageBytes = 4096, kPages = 256;                            // of the FAT, in memory

tl::unexpected<Error> Damaged(std::string_view path, std::string_view what) {
  return Fail(EIO, "/{}: the filesystem is damaged ({}); repair it with fsck.fat, or try --reader guestfs", path, what);
}

// What the boot sector says. Bytes from the filesystem's start.
struct Layout {
  int bits = 0;  // 12, 16 or 32
  uint32_t cluster_bytes = 0;
  uint32_t behind = 0;  // the first number that is no cluster's any more
  uint64_t fat_at = 0, root_at = 0, root_bytes = 0, data_at = 0;
  uint32_t root_cluster = 0;  // of FAT32, whose root directory is a chain as any other
  uint64_t info_at = 0;       // of FAT32
  bool dirty = false;

  uint32_t clusters() const { return behind - kFirstCluster; }
  uint64_t PlaceOf(uint32_t cluster) const { return data_at + uint64_t{cluster - kFirstCluster} * cluster_bytes; }
  uint64_t EntryAt(uint32_t cluster) const { return fat_at + uint64_t{cluster} * static_cast<unsigned>(bits) / 8; }
  uint32_t Bad() const { return bits == 12 ? 0xff7 : bits == 16 ? 0xfff7 : 0x0ffffff7; }
};

// EOPNOTSUPP, and why not.
Result<Layout> ReadLayout(const DiskWindow& window) {
  std::string boot(kBootBytes, '\0');
  const auto bad = [](std::string_view what) { return Fail(EOPNOTSUPP, "its boot sector is damaged ({})", what); };
  if (!window.ReadAt(0, boot.data(), boot.size())) return bad("it cannot be read");
  const auto u8 = [&](size_t at) { return static_cast<uint8_t>(boot[at]); };
  const auto u16 = [&](size_t at) { return LoadAt<uint16_t>(boot, at); };
  const auto u32 = [&](size_t at) { return LoadAt<uint32_t>(boot, at); };

  const uint32_t sector_bytes = u16(11), cluster_sectors = u8(13), reserved = u16(14), fats = u8(16);
  if (!std::has_single_bit(sector_bytes) || sector_bytes < 512 || sector_bytes > 4096) return bad("the sector's size");
  if (!std::has_single_bit(cluster_sectors)) return bad("the cluster's size");
  if (reserved == 0) return bad("no reserved sector");
  if (fats == 0) return bad("no FAT");
  if (u8(21) < 0xf8 && u8(21) != 0xf0) return bad("the medium");

  Layout layout;
  uint64_t fat_sectors = u16(22);
  const bool wide = fat_sectors == 0;
  if (wide) fat_sectors = u32(36);
  if (fat_sectors == 0) return bad("a FAT of no length");
  const uint64_t sectors = u16(19) != 0 ? u16(19) : u32(32);
  const uint64_t root_bytes = uint64_t{u16(17)} * kFatEntryBytes;
  if (root_bytes % sector_bytes != 0) return bad("the root directory's size");
  const uint64_t data_sector = reserved + fats * fat_sectors + root_bytes / sector_bytes;
  if (data_sector >= sectors) return bad("no room for files");
  if (sectors > window.size() / sector_bytes) {
    return Fail(EOPNOTSUPP, "it has {} sectors of {} bytes and its partition only {} bytes", sectors, sector_bytes,
                window.size());
  }
  const uint64_t clusters = (sectors - data_sector) / cluster_sectors;
  layout.bits = wide ? 32 : clusters > kMost12 ? 16 : 12;
  if (clusters == 0 || clusters > (wide ? kMost32 : kMost16)) return bad("the number of clusters");
  if ((clusters + kFirstCluster) * static_cast<unsigned>(layout.bits) > fat_sectors * sector_bytes * 8) {
    return bad("a FAT that is too short for its clusters");
  }
  layout.cluster_bytes = cluster_sectors * sector_bytes;
  layout.behind = static_cast<uint32_t>(clusters) + kFirstCluster;
  layout.fat_at = uint64_t{reserved} * sector_bytes;
  layout.root_at = layout.fat_at + fats * fat_sectors * sector_bytes;
  layout.root_bytes = root_bytes;
  layout.data_at = data_sector * sector_bytes;
  if (wide) {
    if ((u16(40) & 0x80) != 0 && (u16(40) & 0x0f) != 0) return Fail(EOPNOTSUPP, "another FAT than its first is in use");
    if (u16(42) != 0) return Fail(EOPNOTSUPP, "it is of an unknown version");
    layout.root_cluster = u32(44);
    layout.info_at = uint64_t{u16(48)} * sector_bytes;
  } else if (root_bytes == 0) {
    return bad("no root directory");
  }

  // Linux marks what it has mounted in the boot sector, where that has the fields; Windows in the FAT's second entry,
  // whose two highest bits are otherwise set.
  const size_t state_at = wide ? 65 : 37;
  const bool has_state = u8(state_at + 1) == 0x28 || u8(state_at + 1) == 0x29;
  layout.dirty = has_state && (u8(state_at) & kDirtyBits) != 0;
  if (layout.bits != 12) {
    std::array<char, sizeof(uint32_t)> raw{};
    const size_t length = wide ? 4 : 2;
    if (!window.ReadAt(layout.EntryAt(1), raw.data(), length)) return bad("the FAT cannot be read");
    const uint32_t mark = LoadAt<uint32_t>({raw.data(), raw.size()}, 0), clean = wide ? 0x0c000000 : 0xc000;
    if ((mark & clean) != clean) layout.dirty = true;
  }
  return layout;
}

std::string Lowered(std::string_view name) {
  std::string out(name);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return out;
}

Entry EntryOf(const FatEntry& file) {
  Entry entry;
  entry.type = file.is_directory ? FileType::kDirectory : FileType::kRegular;
  entry.mode = file.read_only && !file.is_directory ? 0555 : 0755;
  entry.mtime_sec = file.mtime_sec;
  return entry;
}

std::string Join(const std::string& directory, const std::string& name) {
  return directory.empty() ? name : directory + "/" + name;
}

}  // namespace

struct FatFilesystem::Impl {
  const DiskWindow& window;
  const Layout layout;
  struct Page {
    uint64_t number = UINT64_MAX;
    std::string bytes;
  };
  std::vector<Page> pages{kPages};
  std::vector<bool> taken;  // of each cluster: whether a file or directory of this walk has it

  Impl(const DiskWindow& where, const Layout& what) : window(where), layout(what) {}

  Result<uint8_t> FatByte(uint64_t at) {
    Page& page = pages[at / kPageBytes % kPages];
    if (page.number != at / kPageBytes) {
      const uint64_t start = at / kPageBytes * kPageBytes;
      page.number = UINT64_MAX;
      page.bytes.resize(static_cast<size_t>(std::min<uint64_t>(kPageBytes, window.size() - start)));
      TRY(window.ReadAt(start, page.bytes.data(), page.bytes.size()));
      page.number = at / kPageBytes;
    }
    return static_cast<uint8_t>(page.bytes.at(static_cast<size_t>(at % kPageBytes)));
  }

  // What the FAT says of a cluster: the next one, or a mark.
  Result<uint32_t> After(uint32_t cluster) {
    const uint64_t at = layout.EntryAt(cluster);
    uint32_t value = 0;
    for (unsigned i = 0; i < (layout.bits == 32 ? 4U : 2U); ++i) {
      ASSIGN_OR_RETURN(const uint8_t byte, FatByte(at + i));
      value |= uint32_t{byte} << (8 * i);
    }
    if (layout.bits == 12) return cluster % 2 == 0 ? value & 0xfff : value >> 4;
    return layout.bits == 32 ? value & 0x0fffffff : value;
  }

  // The clusters of a chain in as few extents as there are, whole clusters each. `count`: how many it must have; none:
  // a directory, as many as such may have. With `take` none may be taken, and then these are.
  Status ForEachExtent(const std::string& path, uint32_t first, std::optional<uint64_t> count, bool take,
                       const std::function<Status(const Extent&)>& visit) {
    Extent extent;
    uint32_t cluster = first;
    for (uint64_t index = 0;; ++index) {
      if (cluster < kFirstCluster || cluster >= layout.behind) return Damaged(path, "an impossible cluster");
      if (index == (count ? *count : kMaxDirectoryBytes / layout.cluster_bytes)) {
        return Damaged(path,
                       count ? "more clusters than its size needs" : "a directory that is too long, or has a loop");
      }
      if (take) {
        if (taken[cluster]) return Damaged(path, "a cluster that belongs to two files, or to one twice");
        taken[cluster] = true;
      }
      const uint64_t place = layout.PlaceOf(cluster);
      if (extent.length > 0 && extent.physical + extent.length == place) {
        extent.length += layout.cluster_bytes;
      } else {
        if (extent.length > 0) TRY(visit(extent));
        extent = {index * layout.cluster_bytes, place, layout.cluster_bytes};
      }
      ASSIGN_OR_RETURN(const uint32_t next, After(cluster));
      if (next == 0) return Damaged(path, "a free cluster");
      if (next == layout.Bad()) return Damaged(path, "a bad cluster");
      if (next > layout.Bad()) {
        if (count && index + 1 < *count) return Damaged(path, "fewer clusters than its size needs");
        return visit(extent);
      }
      cluster = next;
    }
  }

  // Of a regular file.
  Status ForEachExtentOf(const std::string& path, const FatEntry& file, bool take,
                         const std::function<Status(const Extent&)>& visit) {
    if (file.size == 0) return file.first_cluster == 0 ? Status{} : Damaged(path, "a cluster of an empty file");
    const uint64_t count = (uint64_t{file.size} + layout.cluster_bytes - 1) / layout.cluster_bytes;
    return ForEachExtent(path, file.first_cluster, count, take, visit);
  }

  // A directory's entries, sorted by name. `self` is nothing for the root.
  Result<std::vector<FatEntry>> List(const std::string& path, const FatEntry* self, bool take) {
    std::string bytes;
    const uint32_t first = self != nullptr ? self->first_cluster : layout.root_cluster;
    // Its parent's ".." says 0 where the root is meant; no directory's own entry may.
    if (self != nullptr && layout.bits == 32 && first == layout.root_cluster) {
      return Damaged(path, "a directory with two names");
    }
    if (self == nullptr && layout.bits != 32) {
      bytes.resize(static_cast<size_t>(layout.root_bytes));
      TRY(window.ReadAt(layout.root_at, bytes.data(), bytes.size()));
    } else {
      TRY(ForEachExtent(path, first, std::nullopt, take, [&](const Extent& extent) {
        bytes.resize(static_cast<size_t>(extent.logical + extent.length));
        return window.ReadAt(extent.physical, bytes.data() + extent.logical, static_cast<size_t>(extent.length));
      }));
    }
    FatDirectory directory = DecodeFatDirectory(bytes, layout.bits == 32);
    // The kernel's own check; "." and ".." count.
    if (self != nullptr && directory.directories < 2) return Damaged(path, "a directory without . and ..");
    std::vector<std::pair<std::string, size_t>> order;
    for (size_t i = 0; i < directory.entries.size(); ++i) {
      const std::string& name = directory.entries[i].name;
      if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
        return Damaged(path, "an impossible name");
      }
      order.emplace_back(Lowered(name), i);
    }
    std::sort(order.begin(), order.end());
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i].first == order[i - 1].first) return Damaged(path, "a name that comes twice");
    }
    std::vector<FatEntry> entries;
    entries.reserve(order.size());
    for (const auto& [name, index] : order) entries.push_back(std::move(directory.entries[index]));
    return entries;
  }

  Status SendFile(const std::string& path, const FatEntry& file, ReaderOutput& output) {
    EntryRecord record;
    record.path = path;
    record.entry = EntryOf(file);
    record.entry.size = file.size;
    TRY(output.Send(RecordKind::kFile, Encode(record)));
    std::vector<Extent> extents;
    const auto flush = [&]() -> Status {
      if (extents.empty()) return {};
      TRY(output.Send(RecordKind::kExtents, Encode(extents)));
      extents.clear();
      return {};
    };
    TRY(ForEachExtentOf(path, file, true, [&](const Extent& extent) {
      extents.push_back(extent);
      return extents.size() < kMaxExtentsInRecord ? Status{} : flush();
    }));
    TRY(flush());
    return output.Send(RecordKind::kEndFile, {});
  }

  // For the progress bar: 0 where it would take long to count.
  Result<uint64_t> UsedBytes() {
    uint64_t free = 0;
    if (layout.bits == 32) {
      std::string info(kBootBytes, '\0');
      if (layout.info_at == 0 || !window.ReadAt(layout.info_at, info.data(), info.size())) return 0;
      free = LoadAt<uint32_t>(info, 488);
      if (LoadAt<uint32_t>(info, 0) != 0x41615252 || LoadAt<uint32_t>(info, 484) != 0x61417272) return 0;
    } else {
      for (uint32_t cluster = kFirstCluster; cluster < layout.behind; ++cluster) {
        ASSIGN_OR_RETURN(const uint32_t next, After(cluster));
        if (next == 0) ++free;
      }
    }
    return free > layout.clusters() ? 0 : (layout.clusters() - free) * layout.cluster_bytes;
  }
};

FatFilesystem::FatFilesystem(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FatFilesystem::~FatFilesystem() = default;

DiskFilesystem::Summary FatFilesystem::Examine(const DiskWindow& window) {
  Summary summary;
  const auto layout = ReadLayout(window);
  if (!layout) {
    summary.obstacle = layout.error().message;
    return summary;
  }
  if (layout->dirty) summary.obstacle = "it was not unmounted cleanly, or has errors";
  summary.used_bytes = Impl(window, *layout).UsedBytes().value_or(0);
  return summary;
}

Result<std::unique_ptr<DiskFilesystem>> FatFilesystem::Open(const DiskWindow& window) {
  ASSIGN_OR_RETURN(const Layout layout, ReadLayout(window));
  if (layout.dirty) return Fail(EOPNOTSUPP, "it was not unmounted cleanly, or has errors");
  return std::unique_ptr<DiskFilesystem>(new FatFilesystem(std::make_unique<Impl>(window, layout)));
}

Status FatFilesystem::Walk(const std::vector<std::string>& hidden, ReaderOutput& output) {
  struct Frame {
    std::string path;
    std::vector<FatEntry> subdirectories;
    size_t next = 0;
  };
  std::vector<Frame> stack;
  impl_->taken.assign(impl_->layout.behind, false);
  // Files first, then one directory after the other: neighbours in a directory become neighbours in the packs.
  const auto enter = [&](const std::string& path, const FatEntry* self) -> Status {
    EntryRecord record;
    record.path = path;
    record.entry = EntryOf(self != nullptr ? *self : FatEntry{.name = {}, .is_directory = true});
    TRY(output.Send(RecordKind::kEntry, Encode(record)));
    Frame frame;
    frame.path = path;
    if (path.empty() || std::find(hidden.begin(), hidden.end(), path) == hidden.end()) {
      ASSIGN_OR_RETURN(std::vector<FatEntry> entries, impl_->List(path, self, true));
      for (FatEntry& entry : entries) {
        const std::string below = Join(path, entry.name);
        if (below.size() > kMaxPathBytes) return Damaged(path, "its directories are too deep");
        if (entry.is_directory) {
          frame.subdirectories.push_back(std::move(entry));
        } else {
          TRY(impl_->SendFile(below, entry, output));
        }
      }
    }
    stack.push_back(std::move(frame));
    return {};
  };
  TRY(enter("", nullptr));
  while (!stack.empty()) {
    Frame& top = stack.back();
    if (top.next == top.subdirectories.size()) {
      stack.pop_back();
      continue;
    }
    const FatEntry child = std::move(top.subdirectories[top.next++]);
    TRY(enter(Join(top.path, child.name), &child));
  }
  return {};
}

Status FatFilesystem::LookUp(const std::string& path, bool follow, uint64_t limit, ReaderOutput& output) {
  LookupRecord record{path, 0};
  std::optional<FatEntry> at;  // nothing: the root
  std::string above;
  for (size_t start = 0; start < path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string wanted = Lowered(std::string_view(path).substr(start, end - start));
    start = end + 1;
    if (wanted.empty()) continue;
    if (at && !at->is_directory) return output.Send(RecordKind::kLookup, Encode(record));
    ASSIGN_OR_RETURN(const auto entries, impl_->List(above, at ? &*at : nullptr, false));
    const auto found = std::find_if(entries.begin(), entries.end(),
                                    [&](const FatEntry& entry) { return Lowered(entry.name) == wanted; });
    if (found == entries.end()) return output.Send(RecordKind::kLookup, Encode(record));
    above = Join(above, found->name);
    at = *found;
  }
  const bool regular = at && !at->is_directory;
  record.type = static_cast<uint8_t>(regular ? FileType::kRegular : FileType::kDirectory);
  TRY(output.Send(RecordKind::kLookup, Encode(record)));
  if (!follow || !regular) return {};
  std::string bytes(static_cast<size_t>(std::min<uint64_t>(limit, at->size)), '\0');
  TRY(impl_->ForEachExtentOf(path, *at, false, [&](const Extent& extent) -> Status {
    if (extent.logical >= bytes.size()) return {};
    return impl_->window.ReadAt(extent.physical, bytes.data() + extent.logical,
                                static_cast<size_t>(std::min<uint64_t>(extent.length, bytes.size() - extent.logical)));
  }));
  TRY(output.SendBytes(bytes));
  return output.Send(RecordKind::kEndFile, {});
}

}  // namespace mirage
