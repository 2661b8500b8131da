#include "indexer/btrfs_layout.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>

#include "indexer/libguestfs.h"

namespace mirage {
namespace {

constexpr uint64_t kTopLevel = 5;
constexpr std::string_view kSubvolume = "btrfsvol:";
constexpr size_t kMostNamed = 8;

struct Freer {
  void operator()(guestfs_btrfssubvolume_list* list) const { Guestfs().free_btrfssubvolume_list(list); }
};

// "/@/home/" -> "@/home": as the list of subvolumes has it.
std::string CleanPath(std::string_view path) {
  std::string out;
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    if (end > at) {
      if (!out.empty()) out += '/';
      out += path.substr(at, end - at);
    }
    at = end + 1;
  }
  return out;
}

// The value of an option; the last one counts, as it does for the kernel.
std::optional<std::string_view> Option(std::string_view options, std::string_view name) {
  std::optional<std::string_view> value;
  for (size_t at = 0; at < options.size();) {
    const size_t end = std::min(options.find(',', at), options.size());
    const std::string_view word = options.substr(at, end - at);
    if (word.starts_with(name)) value = word.substr(name.size());
    at = end + 1;
  }
  return value;
}

// As the kernel reads it: 0 is the top level.
std::optional<uint64_t> SubvolumeId(std::string_view text) {
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  if (hex) text.remove_prefix(2);
  uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id, hex ? 16 : 10);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return id == 0 ? kTopLevel : id;
}

// The kernel's name of the device that is mounted at "/", out of what df(1) says in the appliance.
std::string KernelName(guestfs_h* g) {
  const GuestText table(Guestfs().df(g));
  std::string_view text = table != nullptr ? table.get() : "";
  std::string name;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    while (line.ends_with('/')) line.remove_suffix(1);
    if (line.ends_with(" /sysroot")) name = line.substr(0, line.find(' '));
  }
  return name.starts_with("/dev/") ? name : "";
}

std::string NameOf(const std::string& device, const std::string& path) {
  return path.empty() ? device : fmt::format("{}{}/{}", kSubvolume, device, path);
}

}  // namespace

Result<BtrfsLayout> BtrfsLayout::Read(Appliance& appliance, std::map<std::string, std::string>& filesystems) {
  guestfs_h* const g = appliance.handle();
  BtrfsLayout layout;
  std::map<std::string, std::string> first_of;  // device by UUID
  std::vector<std::string> others;
  for (const auto& [device, type] : filesystems) {
    if (type != "btrfs" || device.starts_with(kSubvolume)) continue;
    const GuestText uuid(Guestfs().vfs_uuid(g, device.c_str()));
    if (uuid != nullptr && *uuid != 0) {
      const auto [first, is_first] = first_of.emplace(uuid.get(), device);
      if (!is_first) {
        layout.volumes_[first->second].others.push_back(device);
        others.push_back(device);
        continue;
      }
    }
    Volume& volume = layout.volumes_[device];
    if (Guestfs().mount_options(g, "ro,subvolid=5", device.c_str(), "/") != 0) {
      if (appliance.interrupted()) return appliance.Failed("");
      continue;
    }
    if (std::string name = KernelName(g); !name.empty() && name != device) volume.aliases.push_back(std::move(name));
    const int64_t standard = Guestfs().btrfs_subvolume_get_default(g, "/");
    const std::unique_ptr<guestfs_btrfssubvolume_list, Freer> list(Guestfs().btrfs_subvolume_list(g, "/"));
    if (Guestfs().umount(g, "/") != 0) return appliance.Failed(fmt::format("{} cannot be unmounted", device));
    if (list == nullptr || standard < 0) continue;
    volume.standard = standard == 0 ? kTopLevel : static_cast<uint64_t>(standard);
    volume.paths[kTopLevel] = "";
    for (uint32_t i = 0; i < list->len; ++i) {
      const guestfs_btrfssubvolume& subvolume = list->val[i];
      volume.paths[subvolume.btrfssubvolume_id] = CleanPath(subvolume.btrfssubvolume_path);
    }
  }
  for (const std::string& device : others) filesystems.erase(device);
  std::erase_if(filesystems, [](const auto& item) { return item.first.starts_with(kSubvolume); });
  return layout;
}

BtrfsLayout::Place BtrfsLayout::Find(std::string_view name, bool foreign) const {
  Place place;
  place.named = name.starts_with(kSubvolume);
  if (place.named) name.remove_prefix(kSubvolume.size());
  size_t best = 0;
  const auto consider = [&](const auto& volume, std::string_view own) {
    // A device of a volume group has more slashes than one.
    const bool fits = place.named ? name.starts_with(own) && name.substr(own.size()).starts_with('/') : name == own;
    if (!fits || own.size() < best) return;
    place.device = &volume.first;
    place.volume = &volume.second;
    best = own.size();
  };
  for (const auto& volume : volumes_) {
    if (foreign && place.named && !volume.second.aliases.empty()) continue;  // libguestfs means another by it
    consider(volume, volume.first);
    for (const std::string& other : volume.second.others) consider(volume, other);
  }
  if (foreign && place.named) {
    for (const auto& volume : volumes_) {
      for (const std::string& alias : volume.second.aliases) consider(volume, alias);
    }
    // A libguestfs that has its own names here too.
    for (const auto& volume : volumes_) {
      if (place.device == nullptr) consider(volume, volume.first);
    }
  }
  if (place.device != nullptr && place.named) place.path = CleanPath(name.substr(best));
  return place;
}

std::vector<std::string> BtrfsLayout::Names() const {
  std::vector<std::string> names;
  for (const auto& [device, volume] : volumes_) {
    for (const auto& [id, path] : volume.paths) names.push_back(NameOf(device, path));
  }
  return names;
}

std::string BtrfsLayout::Root(const std::string& root) const {
  const Place place = Find(root, true);
  return place.device != nullptr && place.named ? NameOf(*place.device, place.path) : root;
}

std::string BtrfsLayout::Resolve(const std::string& device, std::string_view options) const {
  const Place place = Find(device, true);
  if (place.device == nullptr || place.volume->paths.empty()) return device;
  const std::string& own = *place.device;
  const auto by_id = [&](uint64_t id) {
    const auto known = place.volume->paths.find(id);
    // No such subvolume: a name that cannot be mounted, and says why.
    return NameOf(own, known == place.volume->paths.end() ? fmt::format("subvolid={}", id) : known->second);
  };
  if (const auto subvolume = Option(options, "subvol=")) return NameOf(own, CleanPath(*subvolume));
  if (const auto text = Option(options, "subvolid=")) {
    if (const auto id = SubvolumeId(*text)) return by_id(*id);
  }
  return place.named ? NameOf(own, place.path) : by_id(place.volume->standard);
}

Result<std::string> BtrfsLayout::ChooseRoot(Appliance& appliance, const std::vector<std::string>& roots) const {
  guestfs_h* const g = appliance.handle();
  std::string chosen;
  const Volume* volume = nullptr;
  for (const std::string& name : roots) {
    const Place place = Find(name, true);
    if (place.device == nullptr || (volume != nullptr && place.volume != volume)) return std::string();
    volume = place.volume;
    const std::string root = Root(name);
    const auto list = TakeGuestList(Guestfs().inspect_get_mountpoints(g, root.c_str()));
    if (!list) return appliance.Failed("cannot tell where the system mounts its filesystems");
    ASSIGN_OR_RETURN(const auto fstab, ReadGuestFstab(appliance, root));
    for (size_t i = 0; i + 1 < list->size(); i += 2) {
      if ((*list)[i] != "/") continue;
      if (Resolve((*list)[i + 1], FstabOptions(fstab, "/")) != Resolve(name, "")) continue;
      if (!chosen.empty()) return std::string();
      chosen = root;
    }
  }
  return chosen;
}

std::map<std::string, std::string> BtrfsLayout::NotMounted(const std::vector<std::string>& mounted) const {
  std::map<std::string, std::vector<std::string>> tops;  // paths that are mounted, by device
  for (const std::string& name : mounted) {
    if (Place place = Find(name, false); place.device != nullptr) tops[*place.device].push_back(std::move(place.path));
  }
  std::map<std::string, std::string> out;
  for (const auto& [device, paths] : tops) {
    std::vector<std::string> left;
    for (const auto& [id, path] : volumes_.at(device).paths) {
      const bool shown = std::any_of(paths.begin(), paths.end(), [&](const std::string& top) {
        return top.empty() || path == top || path.starts_with(top + "/");
      });
      if (!shown) left.push_back(path.empty() ? "the top level" : path);
    }
    if (left.empty()) continue;
    const size_t named = std::min(left.size(), kMostNamed);
    std::string& text = out[device];
    for (size_t i = 0; i < named; ++i) text += (i == 0 ? "" : ", ") + left[i];
    if (left.size() > named) text += fmt::format(" and {} more", left.size() - named);
  }
  return out;
}

Result<std::vector<FstabLine>> ReadGuestFstab(Appliance& appliance, const std::string& root) {
  guestfs_h* const g = appliance.handle();
  if (Guestfs().mount_options(g, "ro", root.c_str(), "/") != 0) {
    return appliance.Failed(fmt::format("{} cannot be mounted", root));
  }
  const std::string text = ReadGuestFile(appliance, "/etc/fstab");
  if (Guestfs().umount(g, "/") != 0) return appliance.Failed(fmt::format("{} cannot be unmounted", root));
  return ParseFstab(text);
}

std::string_view FstabOptions(const std::vector<FstabLine>& lines, std::string_view path) {
  for (const FstabLine& line : lines) {
    if (line.path == path) return line.options;
  }
  return {};
}

}  // namespace mirage
