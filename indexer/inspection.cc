#include "indexer/inspection.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "indexer/btrfs_layout.h"
#include "indexer/guest_keys.h"
#include "indexer/libguestfs.h"
#include "indexer/linux_system.h"
#include "indexer/package_version.h"
#include "indexer/rpm_database.h"
#include "indexer/system_description.h"

namespace mirage {
namespace {

struct Freer {
  void operator()(guestfs_application2_list* list) const { Guestfs().free_application2_list(list); }
};

std::string TakeString(char* text) {
  const GuestText owner(text);
  return text == nullptr ? "" : text;
}

bool HoldsFiles(std::string_view type) {
  return !type.empty() && type != "unknown" && type != "swap" && !IsEncryptedType(type) && !type.ends_with("_member");
}

// "/dev/sda1" -> "sda1", "/dev/vg/root" -> "vg-root".
std::string DirectoryName(std::string_view device) {
  if (device.starts_with("/dev/")) device.remove_prefix(5);
  std::string name(device);
  std::replace(name.begin(), name.end(), '/', '-');
  return name;
}

// How a filesystem is mounted, whatever the appliance's defaults are: an id must not depend on them (IMPORT.md).
std::string MountOptions(std::string_view type, std::string_view device) {
  if (type == "vfat") return "ro,utf8=1,tz=UTC,uid=0,gid=0,fmask=0022,dmask=0022,shortname=mixed";
  if (type == "ntfs") return "ro,uid=0,gid=0,fmask=0022,dmask=0022,streams_interface=xattr";
  if (type == "iso9660") return "ro,utf8,map=normal";
  if (type == "xfs") return "ro,nouuid";
  if (type == "btrfs" && !device.starts_with("btrfsvol:")) return "ro,subvolid=5";  // not the default subvolume
  return "ro";
}

Status CannotRead(const std::string& what, bool skip_unreadable, ImportSink& sink) {
  if (!skip_unreadable) return Fail(EIO, "{}; --skip-unreadable leaves it out", what);
  sink.Omit(std::string(kUnreadable) + what);
  return {};
}

Status PlanSystem(Appliance& appliance, const std::map<std::string, std::string>& filesystems,
                  const BtrfsLayout& btrfs, Inspection& inspection, bool skip_unreadable, ImportSink& sink) {
  guestfs_h* const g = appliance.handle();
  const auto list = TakeGuestList(Guestfs().inspect_get_mountpoints(g, inspection.root.c_str()));
  if (!list) return appliance.Failed("cannot tell where the system mounts its filesystems");
  std::vector<FstabLine> fstab;  // wanted for the subvolumes in it alone
  if (!btrfs.empty()) {
    ASSIGN_OR_RETURN(fstab, ReadGuestFstab(appliance, inspection.root));
  }
  std::set<std::string> mounted;
  for (size_t i = 0; i + 1 < list->size(); i += 2) {
    MountPlan plan;
    plan.path = (*list)[i];
    plan.device = btrfs.Resolve((*list)[i + 1], FstabOptions(fstab, plan.path));
    plan.filesystem =
        plan.device.starts_with("btrfsvol:") ? "btrfs" : TakeString(Guestfs().vfs_type(g, plan.device.c_str()));
    mounted.insert(plan.device);
    inspection.mounts.push_back(std::move(plan));
  }
  std::sort(inspection.mounts.begin(), inspection.mounts.end(), [](const MountPlan& a, const MountPlan& b) {
    return a.path.size() != b.path.size() ? a.path.size() < b.path.size() : a.path < b.path;
  });
  for (const auto& [device, type] : filesystems) {
    if (mounted.contains(device) || type == "swap" || type == "unknown" || type.empty()) continue;
    // A btrfs whose subvolumes are mounted, or some of them: below.
    const std::string prefix = "btrfsvol:" + device + "/";
    if (std::any_of(mounted.begin(), mounted.end(), [&](const std::string& m) { return m.starts_with(prefix); })) {
      continue;
    }
    if (inspection.opened.contains(device)) continue;
    if (IsEncryptedType(type)) {
      TRY(CannotRead(fmt::format("{} ({}) is encrypted; try --key", device, type), skip_unreadable, sink));
    } else {
      sink.Omit(fmt::format("{} ({}) is not mounted by the system's fstab and was not read", device, type));
    }
  }
  for (const auto& [device, names] : btrfs.NotMounted({mounted.begin(), mounted.end()})) {
    sink.Omit(fmt::format("{} (btrfs): of its subvolumes, not mounted by the system's fstab and not read: {}", device,
                          names));
  }
  return {};
}

Status PlanFilesystems(const std::map<std::string, std::string>& filesystems, Inspection& inspection,
                       bool skip_unreadable, ImportSink& sink) {
  std::string encrypted;
  for (const auto& [device, type] : filesystems) {
    if (IsEncryptedType(type) && !inspection.opened.contains(device)) encrypted = type;
    if (!HoldsFiles(type)) continue;
    inspection.mounts.push_back({device, type, "/" + DirectoryName(device)});
  }
  if (inspection.mounts.empty() && !encrypted.empty()) {
    return Fail(EINVAL, "the disk is encrypted ({}); try --key", encrypted);
  }
  if (inspection.mounts.empty()) {
    return Fail(EINVAL, "no filesystem found on it; is it encrypted, or no disk image?");
  }
  for (const auto& [device, type] : filesystems) {
    if (!IsEncryptedType(type) || inspection.opened.contains(device)) continue;
    TRY(CannotRead(fmt::format("{} ({}) is encrypted; try --key", device, type), skip_unreadable, sink));
  }
  return {};
}

// Of a mounted system, if it has an rpm database that can be read; libguestfs cannot where the host's rpm is not of the
// guest's kind. What is there but cannot be read is told.
std::optional<std::vector<Package>> ListRpmPackages(Appliance& appliance, ImportSink& sink,
                                                    const std::atomic<bool>* interrupted) {
  guestfs_h* const g = appliance.handle();
  for (const std::string path : kRpmDatabasePaths) {
    if (Guestfs().is_file_opts(g, path.c_str(), GUESTFS_IS_FILE_OPTS_FOLLOWSYMLINKS, 1, -1) != 1) continue;
    const std::string log = path + "-wal";
    const bool has_log = Guestfs().is_file(g, log.c_str()) == 1 && Guestfs().filesize(g, log.c_str()) > 0;
    const int64_t size = Guestfs().filesize(g, path.c_str());
    const int file = memfd_create("rpmdb", MFD_CLOEXEC);
    if (file < 0) return std::nullopt;
    std::string why;
    std::optional<std::vector<Package>> packages;
    if (has_log) {
      why = "its last changes are in a log beside it, which is not read";
    } else if (size < 0 || static_cast<uint64_t>(size) > kMaxRpmDatabaseBytes) {
      why = "it is too large";
    } else if (Guestfs().download(g, path.c_str(), fmt::format("/dev/fd/{}", file).c_str()) != 0) {
      why = appliance.Failed("it cannot be read").value().message;
    } else if (auto read = ReadRpmDatabase(file, interrupted)) {
      packages = std::move(*read);
    } else {
      why = read.error().message;
    }
    close(file);
    if (!why.empty()) sink.Omit(fmt::format("the installed packages could not be listed: {}: {}", path, why));
    if (!packages) packages.emplace();
    return packages;
  }
  return std::nullopt;
}

}  // namespace

Result<Inspection> InspectDisk(Appliance& appliance, const std::set<std::string>& opened, bool skip_unreadable,
                               ImportSink& sink) {
  guestfs_h* const g = appliance.handle();
  Inspection inspection;
  inspection.opened = opened;
  const auto devices = TakeGuestList(Guestfs().list_devices(g));
  if (!devices) return appliance.Failed("cannot list the disks");
  for (const std::string& device : *devices) {
    const int64_t size = Guestfs().blockdev_getsize64(g, device.c_str());
    if (size < 0) return appliance.Failed("cannot tell the size of the disk");
    Disk disk;
    disk.name = DirectoryName(device);
    disk.role = "data";
    disk.size_bytes = static_cast<uint64_t>(size);
    inspection.disks.push_back(std::move(disk));
  }
  ASSIGN_OR_RETURN(auto filesystems, ListFilesystems(appliance));
  ASSIGN_OR_RETURN(const BtrfsLayout btrfs, BtrfsLayout::Read(appliance, filesystems));
  for (const auto& [device, type] : filesystems) inspection.devices.insert(device);
  for (std::string& name : btrfs.Names()) inspection.devices.insert(std::move(name));

  const bool any =
      std::any_of(filesystems.begin(), filesystems.end(), [](const auto& item) { return HoldsFiles(item.second); });
  if (any) {  // inspection takes long, and finds nothing where there is nothing to mount
    auto roots = TakeGuestList(Guestfs().inspect_os(g));
    if (!roots) {
      const Error error = appliance.Failed("the disk could not be inspected").value();
      if (error.code == EINTR) return tl::make_unexpected(error);
      sink.Omit(error.message);
      roots.emplace();
    }
    if (roots->size() > 1) {
      ASSIGN_OR_RETURN(std::string chosen, btrfs.ChooseRoot(appliance, *roots));
      if (!chosen.empty()) {
        roots->clear();
        inspection.root = std::move(chosen);
      }
    }
    if (roots->size() > 1) {
      std::string names;
      for (const std::string& root : *roots) names += (names.empty() ? "" : ", ") + root;
      return Fail(EINVAL, "several operating systems are on it ({}); import each from an image of its own", names);
    }
    if (roots->size() == 1) inspection.root = btrfs.Root(roots->front());
  }
  if (inspection.root.empty()) {
    TRY(PlanFilesystems(filesystems, inspection, skip_unreadable, sink));
  } else {
    for (Disk& disk : inspection.disks) disk.role = "system";
    TRY(PlanSystem(appliance, filesystems, btrfs, inspection, skip_unreadable, sink));
  }
  return inspection;
}

Status MountAll(Appliance& appliance, Inspection& inspection, bool skip_unreadable, ImportSink& sink) {
  guestfs_h* const g = appliance.handle();
  std::vector<MountPlan> mounted;
  for (MountPlan& plan : inspection.mounts) {
    const bool made = !inspection.root.empty() || Guestfs().mkmountpoint(g, plan.path.c_str()) == 0;
    if (made && Guestfs().mount_options(g, MountOptions(plan.filesystem, plan.device).c_str(), plan.device.c_str(),
                                      plan.path.c_str()) == 0) {
      if (plan.filesystem == "ntfs") {
        sink.Omit(fmt::format("{} (ntfs): DOS attributes, Windows ACLs, short names and creation times; reparse points "
                              "that are no links are empty", plan.device));
      }
      mounted.push_back(std::move(plan));
      continue;
    }
    Error error = appliance.Failed(fmt::format("{} ({}) cannot be mounted", plan.device, plan.filesystem)).value();
    // A root that cannot be mounted, or nothing at all, is no version.
    const bool needed = inspection.root.empty() ? inspection.mounts.size() == 1 : plan.path == "/";
    if (error.code == EINTR || needed) return tl::make_unexpected(std::move(error));
    if (inspection.devices.contains(plan.device)) {
      TRY(CannotRead(error.message, skip_unreadable, sink));
    } else {
      sink.Omit(fmt::format("{}, which fstab mounts at {}, is not on the disk", plan.device, plan.path));
    }
  }
  if (mounted.empty()) return Fail(EIO, "none of its filesystems can be mounted; is the image damaged?");
  inspection.mounts = std::move(mounted);
  return {};
}

std::string DescribeSystem(Appliance& appliance, const Inspection& inspection, ImportSink& sink) {
  if (inspection.root.empty()) return {};
  guestfs_h* const g = appliance.handle();
  const char* const root = inspection.root.c_str();
  SystemDescription system;
  system.type = TakeString(Guestfs().inspect_get_type(g, root));
  system.distro = TakeString(Guestfs().inspect_get_distro(g, root));
  system.product = TakeString(Guestfs().inspect_get_product_name(g, root));
  system.major = Guestfs().inspect_get_major_version(g, root);
  system.minor = Guestfs().inspect_get_minor_version(g, root);
  if (system.distro == "debian") {  // of Debian libguestfs gives /etc/debian_version, "12.4"
    SystemDescription release;
    DescribeRelease(ReadGuestFile(appliance, "/etc/os-release"), "", release);
    if (!release.product.empty()) system.product = release.product;
  }
  system.hostname = TakeString(Guestfs().inspect_get_hostname(g, root));
  system.arch = TakeString(Guestfs().inspect_get_arch(g, root));
  std::optional<std::vector<Package>> packages;
  if (TakeString(Guestfs().inspect_get_package_format(g, root)) == "rpm" || FamilyOf(system.distro) == PackageFamily::kRpm) {
    packages = ListRpmPackages(appliance, sink, appliance.interrupt_flag());
  }
  if (packages) {
    system.packages = std::move(*packages);
    for (const MountPlan& plan : inspection.mounts) system.mountpoints[plan.path] = plan.device;
    return EncodeSystem(std::move(system));
  }
  const std::unique_ptr<guestfs_application2_list, Freer> list(Guestfs().inspect_list_applications2(g, root));
  if (list == nullptr) {
    sink.Omit(appliance.Failed("the installed packages could not be listed").value().message);
  } else {
    for (uint32_t i = 0; i < list->len; ++i) {
      const guestfs_application2& package = list->val[i];
      std::string version = package.app2_version;
      if (package.app2_epoch != 0) version = fmt::format("{}:{}", package.app2_epoch, version);
      if (*package.app2_release != 0) version += fmt::format("-{}", package.app2_release);
      system.packages.push_back({package.app2_name, std::move(version), package.app2_arch});
    }
  }
  for (const MountPlan& plan : inspection.mounts) system.mountpoints[plan.path] = plan.device;
  return EncodeSystem(std::move(system));
}

}  // namespace mirage
