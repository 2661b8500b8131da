#include "indexer/disk_survey.h"

#include <blkid/blkid.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "indexer/disk_filesystem.h"

namespace mirage {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr int kMaxPartitions = 256;

struct ProbeFreer {
  void operator()(blkid_probe probe) const { blkid_free_probe(probe); }
};
using Probe = std::unique_ptr<struct blkid_struct_probe, ProbeFreer>;

Result<Probe> NewProbe(const DiskWindow& disk, uint64_t offset, uint64_t size) {
  Probe probe(blkid_new_probe());
  if (!probe ||
      blkid_probe_set_device(probe.get(), disk.descriptor(), static_cast<blkid_loff_t>(disk.offset() + offset),
                             static_cast<blkid_loff_t>(size)) != 0) {
    return Fail(EIO, "the disk cannot be looked at");
  }
  return probe;
}

std::string Value(const Probe& probe, const char* name) {
  const char* value = nullptr;
  size_t length = 0;
  if (blkid_probe_lookup_value(probe.get(), name, &value, &length) != 0 || length == 0) return {};
  return {value, strnlen(value, length)};
}

// Fills in what the place holds. Several contradicting signatures are the type "ambiguous".
Status LookAt(const DiskWindow& disk, PartitionRecord& record) {
  ASSIGN_OR_RETURN(const Probe probe, NewProbe(disk, record.offset, record.size));
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID | BLKID_SUBLKS_TYPE);
  const int found = blkid_do_safeprobe(probe.get());
  if (found == -2) record.type = "ambiguous";
  if (found == -1) return Fail(EIO, "partition {} cannot be looked at", record.number);
  if (found != 0) return {};
  record.type = Value(probe, "TYPE");
  record.uuid = Value(probe, "UUID");
  record.label = Value(probe, "LABEL");
  if (KindOf(record.type) == FilesystemKind::kOther) return {};
  const auto summary =
      DiskFilesystem::Examine(record.type, DiskWindow(disk.descriptor(), disk.offset() + record.offset, record.size));
  record.obstacle = summary.obstacle;
  record.used_bytes = summary.used_bytes;
  record.made_sec = summary.made_sec;
  return {};
}

}  // namespace

Status SurveyDisk(const DiskWindow& disk, ReaderOutput& output) {
  const auto obstacle = [&](std::string_view what) { return output.Send(RecordKind::kObstacle, what); };
  PartitionRecord whole;
  whole.size = disk.size();
  TRY(LookAt(disk, whole));

  ASSIGN_OR_RETURN(const Probe probe, NewProbe(disk, 0, disk.size()));
  blkid_probe_enable_superblocks(probe.get(), 0);
  blkid_probe_enable_partitions(probe.get(), 1);
  blkid_partlist list = nullptr;
  if (blkid_do_fullprobe(probe.get()) == 0) list = blkid_probe_get_partitions(probe.get());
  const blkid_parttable table = list == nullptr ? nullptr : blkid_partlist_get_table(list);
  if (table == nullptr) return output.Send(RecordKind::kPartition, Encode(whole));
  const std::string_view kind(blkid_parttable_get_type(table));
  const int count = blkid_partlist_numof_partitions(list);
  // A boot sector's code may look like a table without partitions in it.
  if (count == 0 && !whole.type.empty()) return output.Send(RecordKind::kPartition, Encode(whole));
  if (!whole.type.empty()) return obstacle("it is a filesystem and has a partition table");
  if (kind != "dos" && kind != "gpt") return obstacle("its partition table is neither MBR nor GPT");
  if (count > kMaxPartitions) return obstacle("it has very many partitions");

  std::vector<std::pair<uint64_t, uint64_t>> places;
  for (int i = 0; i < count; ++i) {
    const blkid_partition partition = blkid_partlist_get_partition(list, i);
    if (blkid_partition_is_extended(partition) != 0) continue;
    if (blkid_partition_get_table(partition) != table && blkid_partition_is_logical(partition) == 0) {
      return obstacle("it has a partition table inside a partition");
    }
    const auto start = static_cast<uint64_t>(blkid_partition_get_start(partition));
    const auto sectors = static_cast<uint64_t>(blkid_partition_get_size(partition));
    const uint64_t all = disk.size() / kSectorBytes;
    if (start > all || sectors > all - start || sectors == 0) return obstacle("a partition reaches behind its end");
    PartitionRecord record;
    record.number = static_cast<uint32_t>(blkid_partition_get_partno(partition));
    record.offset = start * kSectorBytes;
    record.size = sectors * kSectorBytes;
    if (const char* uuid = blkid_partition_get_uuid(partition); uuid != nullptr) record.part_uuid = uuid;
    TRY(LookAt(disk, record));
    places.emplace_back(record.offset, record.size);
    TRY(output.Send(RecordKind::kPartition, Encode(record)));
  }
  std::sort(places.begin(), places.end());
  for (size_t i = 1; i < places.size(); ++i) {
    if (places[i - 1].first + places[i - 1].second > places[i].first) return obstacle("its partitions overlap");
  }
  return {};
}

}  // namespace mirage
