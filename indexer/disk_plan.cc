#include "indexer/disk_plan.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "indexer/linux_system.h"
#include "indexer/package_version.h"
#include "indexer/reader_process.h"
#include "indexer/rpm_database.h"

namespace mirage {
namespace {

constexpr uint64_t kSmallFileBytes = 1 << 20;    // what a system's configuration takes at most
constexpr uint64_t kDpkgStatusBytes = 64 << 20;  // of some 4 KiB a package
constexpr uint64_t kElfHeadBytes = 64;

// What libguestfs knows Windows and FreeDOS by, which may lie on FAT.
const std::vector<std::string> kOtherSystems{"lwindows/system32/cmd.exe",
                                             "lwinnt/system32/cmd.exe",
                                             "lwin32/system32/cmd.exe",
                                             "lwin/system32/cmd.exe",
                                             "lreactos/system32/cmd.exe",
                                             "lboot.ini",
                                             "lfdos/freedos.bss"};

std::string DeviceName(const PartitionRecord& partition) {
  return partition.number == 0 ? "/dev/sda" : fmt::format("/dev/sda{}", partition.number);
}

struct Looked {
  std::optional<FileType> type;
  std::string bytes;
};

class Planner {
 public:
  explicit Planner(const DiskPlanOptions& options) : options_(options) {}

  Result<DiskPlan> Run() {
    TRY(Survey());
    std::vector<const PartitionRecord*> roots;
    for (const PartitionRecord& partition : partitions_) {
      if (KindOf(partition.type) == FilesystemKind::kOther || !partition.obstacle.empty()) continue;
      ASSIGN_OR_RETURN(const bool is_root, IsRoot(partition));
      if (is_root) roots.push_back(&partition);
    }
    if (roots.size() > 1) return Fail(EOPNOTSUPP, "several operating systems are on it");
    if (roots.empty()) {
      TRY(PlanFilesystems());
    } else {
      TRY(PlanSystem(*roots.front()));
    }
    return std::move(plan_);
  }

 private:
  Result<std::unique_ptr<ReaderProcess>> StartJob(std::vector<std::string> arguments) const {
    ReaderProcess::Options job;
    job.image = options_.image;
    job.arguments = std::move(arguments);
    job.interrupted = options_.interrupted;
    return ReaderProcess::Start(job);
  }

  Status Survey() {
    ASSIGN_OR_RETURN(const auto reader, StartJob({"survey", std::to_string(options_.size)}));
    for (;;) {
      ASSIGN_OR_RETURN(const ReaderRecord record, reader->Next());
      if (record.kind == RecordKind::kDone) break;
      if (record.kind == RecordKind::kObstacle) return Fail(EOPNOTSUPP, "{}", record.payload.substr(0, 200));
      if (record.kind != RecordKind::kPartition || partitions_.size() > 256) {
        return Fail(EIO, "the disk reader sent an impossible record; the image may be made to do harm");
      }
      ASSIGN_OR_RETURN(PartitionRecord partition, DecodePartition(record.payload));
      if (partition.offset > options_.size || partition.size > options_.size - partition.offset) {
        return Fail(EIO, "the disk reader sent an impossible partition; the image may be made to do harm");
      }
      partitions_.push_back(std::move(partition));
    }
    // It may be a root; a FAT counts where it is mounted.
    for (const PartitionRecord& partition : partitions_) {
      if (KindOf(partition.type) == FilesystemKind::kExt) TRY(CheckObstacle(partition));
    }
    return {};
  }
  static Status CheckObstacle(const PartitionRecord& partition) {
    if (partition.obstacle.empty()) return {};
    return Fail(EOPNOTSUPP, "{} ({}): {}", DeviceName(partition), partition.type, partition.obstacle);
  }

  // Each path with 'l' or 'f' before it, as disk_reader_main.cc takes them.
  Result<std::vector<Looked>> Look(const PartitionRecord& partition, const std::vector<std::string>& paths,
                                   uint64_t limit) const {
    std::vector<std::string> arguments{"look", partition.type, std::to_string(partition.offset),
                                       std::to_string(partition.size), std::to_string(limit)};
    arguments.insert(arguments.end(), paths.begin(), paths.end());
    ASSIGN_OR_RETURN(const auto reader, StartJob(std::move(arguments)));
    std::vector<Looked> found;
    for (;;) {
      ASSIGN_OR_RETURN(ReaderRecord record, reader->Next());
      if (record.kind == RecordKind::kDone) break;
      if (record.kind == RecordKind::kLookup && found.size() < paths.size()) {
        ASSIGN_OR_RETURN(const LookupRecord lookup, DecodeLookup(record.payload));
        found.emplace_back();
        if (lookup.type != 0) found.back().type = static_cast<FileType>(lookup.type);
      } else if (record.kind == RecordKind::kBytes && !found.empty() &&
                 record.payload.size() <= limit - found.back().bytes.size()) {
        found.back().bytes += record.payload;
      } else if (record.kind != RecordKind::kEndFile) {
        return Fail(EIO, "the disk reader sent an impossible record; the image may be made to do harm");
      }
    }
    if (found.size() != paths.size()) return Fail(EIO, "the disk reader left out an answer");
    return found;
  }

  // As libguestfs tells a root filesystem from others. EOPNOTSUPP: it is one of a system that is not known here.
  Result<bool> IsRoot(const PartitionRecord& partition) const {
    std::vector<std::string> wanted{"letc", "lbin", "letc/fstab", "letc/hosts"};
    if (KindOf(partition.type) == FilesystemKind::kFat) {
      wanted.insert(wanted.end(), kOtherSystems.begin(), kOtherSystems.end());
    }
    ASSIGN_OR_RETURN(const auto found, Look(partition, wanted, 0));
    for (size_t i = 4; i < found.size(); ++i) {
      if (found[i].type) return Fail(EOPNOTSUPP, "{} has a Windows or DOS on it", DeviceName(partition));
    }
    const bool bin = found[1].type == FileType::kDirectory || found[1].type == FileType::kSymlink;
    return found[0].type == FileType::kDirectory && bin &&
           (found[2].type == FileType::kRegular || found[3].type == FileType::kRegular);
  }

  Status PlanFilesystems() {
    for (const PartitionRecord& partition : partitions_) {
      if (partition.type.empty() || partition.type == "swap") continue;
      if (KindOf(partition.type) == FilesystemKind::kOther) {
        return Fail(EOPNOTSUPP, "{} is of type {}, not ext2, ext3, ext4 or FAT", DeviceName(partition), partition.type);
      }
      TRY(AddMount(partition, "/" + DeviceName(partition).substr(5)));
    }
    if (plan_.mounts.empty()) return Fail(EOPNOTSUPP, "no filesystem found on it; is it encrypted, or no disk image?");
    return {};
  }

  Status AddMount(const PartitionRecord& partition, const std::string& path) {
    TRY(CheckObstacle(partition));
    plan_.mounts.push_back({DeviceName(partition), partition.type, path, partition});
    return {};
  }

  // The partition that fstab means by a device, a UUID or a label; null: none of this disk.
  const PartitionRecord* Resolve(std::string device) const {
    for (const auto& [prefix, name] :
         std::array<std::pair<std::string_view, std::string_view>, 3>{{{"/dev/disk/by-uuid/", "UUID="},
                                                                       {"/dev/disk/by-label/", "LABEL="},
                                                                       {"/dev/disk/by-partuuid/", "PARTUUID="}}}) {
      if (device.starts_with(prefix)) device = std::string(name) + device.substr(prefix.size());
    }
    const size_t equals = device.find('=');
    for (const PartitionRecord& partition : partitions_) {
      if (equals == std::string::npos) {
        for (const std::string_view disk : {"/dev/sda", "/dev/vda", "/dev/hda", "/dev/xvda"}) {
          if (device == std::string(disk) + DeviceName(partition).substr(8)) return &partition;
        }
        continue;
      }
      const std::string key = device.substr(0, equals);
      std::string value = device.substr(equals + 1);
      if (value.size() >= 2 && value.front() == '"' && value.back() == '"') value = value.substr(1, value.size() - 2);
      const std::string& own = key == "UUID" ? partition.uuid : key == "LABEL" ? partition.label : partition.part_uuid;
      const bool same = key == "LABEL" ? own == value
                                       : std::equal(own.begin(), own.end(), value.begin(), value.end(),
                                                    [](char a, char b) { return std::tolower(a) == std::tolower(b); });
      if (same && !own.empty() && key != "PARTLABEL") return &partition;
    }
    return nullptr;
  }

  // The filesystem that holds a path, and the path in it.
  std::pair<const PartitionRecord*, std::string> Place(const std::string& path) const {
    const DirectMount* best = nullptr;
    for (const DirectMount& mount : plan_.mounts) {
      const std::string top = mount.path == "/" ? "/" : mount.path + "/";
      if (path.starts_with(top) && (best == nullptr || mount.path.size() > best->path.size())) best = &mount;
    }
    const size_t skip = best->path == "/" ? 1 : best->path.size() + 1;
    return {&best->partition, path.substr(skip)};
  }
  Result<Looked> ReadFile(const std::string& path, uint64_t limit) const {
    const auto [partition, below] = Place(path);
    ASSIGN_OR_RETURN(auto found, Look(*partition, {"f" + below}, limit));
    return std::move(found.front());
  }

  Status PlanSystem(const PartitionRecord& root) {
    plan_.has_system = true;
    ASSIGN_OR_RETURN(
        const auto files,
        Look(root, {"fetc/fstab", "fetc/os-release", "fetc/debian_version", "fetc/hostname", "fusr/lib/os-release"},
             kSmallFileBytes));
    TRY(AddMount(root, "/"));
    std::map<std::string, const PartitionRecord*> mounted{{DeviceName(root), &root}};
    for (const FstabLine& line : ParseFstab(files[0].bytes)) {
      const PartitionRecord* const partition = Resolve(line.device);
      if (line.path == "/") continue;
      if (partition == nullptr) {
        plan_.doubts.push_back(fmt::format("{}, which fstab mounts at {}, is not on the disk", line.device, line.path));
        continue;
      }
      if (!mounted.emplace(DeviceName(*partition), partition).second) continue;
      if (KindOf(partition->type) == FilesystemKind::kOther) {
        return Fail(EOPNOTSUPP, "{} is of type {}, not ext2, ext3, ext4 or FAT, and mounted at {}",
                    DeviceName(*partition), partition->type.empty() ? "unknown" : partition->type, line.path);
      }
      if (!IsCleanPath(line.path.substr(1))) return Fail(EOPNOTSUPP, "its fstab has a mount point of a strange name");
      TRY(AddMount(*partition, line.path));
    }
    std::sort(plan_.mounts.begin(), plan_.mounts.end(), [](const DirectMount& a, const DirectMount& b) {
      return a.path.size() != b.path.size() ? a.path.size() < b.path.size() : a.path < b.path;
    });
    for (const PartitionRecord& partition : partitions_) {
      if (partition.type.empty() || partition.type == "swap" || mounted.contains(DeviceName(partition))) continue;
      if (partition.type.ends_with("_member") || partition.type == "crypto_LUKS" || partition.type == "BitLocker" ||
          partition.type == "ambiguous") {
        return Fail(EOPNOTSUPP, "{} is of type {}", DeviceName(partition), partition.type);
      }
      plan_.omissions.push_back(fmt::format("{} ({}) is not mounted by the system's fstab and was not read",
                                            DeviceName(partition), partition.type));
    }
    return Describe(root, files);
  }

  Status Describe(const PartitionRecord& root, const std::vector<Looked>& files) {
    SystemDescription& system = plan_.system;
    system.type = "linux";
    system.distro = system.hostname = system.arch = "unknown";
    const std::string& os_release = files[1].bytes.empty() ? files[4].bytes : files[1].bytes;
    if (os_release.empty())
      plan_.doubts.emplace_back("the system has no os-release file, and is not known for what it is");
    DescribeRelease(os_release, files[2].bytes, system);
    if (const std::string name = FirstLine(files[3].bytes); !name.empty()) system.hostname = name;
    ASSIGN_OR_RETURN(const auto programs,
                     Look(root, {"fbin/bash", "fbin/ls", "fbin/echo", "fbin/rm", "fbin/sh"}, kElfHeadBytes));
    for (const Looked& program : programs) {
      const auto arch = ElfArchitecture(program.bytes);
      if (!arch) continue;
      system.arch = *arch;
      break;
    }
    if (FamilyOf(system.distro) == PackageFamily::kRpm) {
      ASSIGN_OR_RETURN(const bool listed, ListRpmPackages());
      if (listed) return {};
    }
    ASSIGN_OR_RETURN(const Looked status, ReadFile("/var/lib/dpkg/status", kDpkgStatusBytes));
    if (status.bytes.size() >= kDpkgStatusBytes) {
      plan_.doubts.emplace_back("the list of its packages is too long");
    } else if (status.type) {
      system.packages = ParseDpkgStatus(status.bytes);
      return {};
    }
    if (FamilyOf(system.distro) != PackageFamily::kRpm) {
      ASSIGN_OR_RETURN(const bool listed, ListRpmPackages());
      if (listed) return {};
    }
    if (plan_.doubts.empty() || plan_.doubts.back().find("packages could not be listed") == std::string::npos) {
      plan_.doubts.emplace_back(
          "the installed packages could not be listed: the direct reader knows dpkg's and rpm's lists alone");
    }
    return {};
  }

  // False: there is no rpm database that can be read; a doubt says what there is.
  Result<bool> ListRpmPackages() {
    for (const std::string path : kRpmDatabasePaths) {
      ASSIGN_OR_RETURN(const Looked log, ReadFile(path + "-wal", 1));
      ASSIGN_OR_RETURN(const Looked database, ReadFile(path, kMaxRpmDatabaseBytes));
      if (database.type != FileType::kRegular) continue;
      auto packages = ReadRpmDatabase(database.bytes, options_.interrupted);
      if (!packages && packages.error().code == EINTR) return tl::make_unexpected(packages.error());
      if (!packages || !log.bytes.empty()) {
        plan_.doubts.push_back(fmt::format("the installed packages could not be listed: {}: {}", path,
                                           packages ? "its last changes are in a log beside it, which is not read"
                                                    : packages.error().message));
        return false;
      }
      plan_.system.packages = std::move(*packages);
      return true;
    }
    for (const std::string path : kOtherRpmDatabasePaths) {
      ASSIGN_OR_RETURN(const Looked database, ReadFile(path, 0));
      if (database.type != FileType::kRegular) continue;
      plan_.doubts.push_back(fmt::format(
          "the installed packages could not be listed: {} is an rpm database of a kind that is not read", path));
      return false;
    }
    return false;
  }

  const DiskPlanOptions& options_;
  std::vector<PartitionRecord> partitions_;
  DiskPlan plan_;
};

}  // namespace

Result<DiskPlan> PlanDisk(const DiskPlanOptions& options) { return Planner(options).Run(); }

}  // namespace mirage
