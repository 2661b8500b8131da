#include "indexer/btrfs_layout.h"

#include <guestfs.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>

namespace mirage {
namespace {

constexpr uint64_t kTopLevel = 5;
constexpr std::string_view kSubvolume = "btrfsvol:";
constexpr size_t kMostNamed = 8;

struct Freer {
  void operator()(char* text) const { std::free(text); }
  void operator()(guestfs_btrfssubvolume_list* list) const { guestfs_free_btrfssubvolume_list(list); }
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
    const std::unique_ptr<char, Freer> uuid(guestfs_vfs_uuid(g, device.c_str()));
    if (uuid != nullptr && *uuid != 0) {
      const auto [first, is_first] = first_of.emplace(uuid.get(), device);
      if (!is_first) {
        layout.volumes_[first->second].others.push_back(device);
        others.push_back(device);
        continue;
      }
    }
    Volume& volume = layout.volumes_[device];
    if (guestfs_mount_options(g, "ro,subvolid=5", device.c_str(), "/") != 0) {
      if (appliance.interrupted()) return appliance.Failed("");
      continue;
    }
    const int64_t standard = guestfs_btrfs_subvolume_get_default(g, "/");
    const std::unique_ptr<guestfs_btrfssubvolume_list, Freer> list(guestfs_btrfs_subvolume_list(g, "/"));
    if (guestfs_umount(g, "/") != 0) return appliance.Failed(fmt::format("{} cannot be unmounted", device));
    if (list == nullptr || standard < 0) continue;
    volume.standard = standard == 0 ? kTopLevel : static_cast<uint64_t>(standard);
    volume.paths[kTopLevel] = "";
    for (uint32_t i = 0; i < list->len; ++i) {
      const guestfs_btrfssubvolume& subvolume = list->val[i];
      volume.paths[subvolume.btrfssubvolume_id] = CleanPath(subvolume.btrfssubvolume_path);
    }
  }
  for (const std::string& device : others) {
    filesystems.erase(device);
    const std::string prefix = fmt::format("{}{}/", kSubvolume, device);
    std::erase_if(filesystems, [&](const auto& item) { return item.first.starts_with(prefix); });
  }
  return layout;
}

const std::pair<const std::string, BtrfsLayout::Volume>* BtrfsLayout::Find(std::string_view device, std::string& path,
                                                                           bool& named) const {
  named = device.starts_with(kSubvolume);
  if (named) device.remove_prefix(kSubvolume.size());
  const std::pair<const std::string, Volume>* best = nullptr;
  size_t best_length = 0;
  const auto consider = [&](const std::pair<const std::string, Volume>& volume, std::string_view own) {
    // A device of a volume group has more slashes than one.
    const bool fits = named ? device.starts_with(own) && device.substr(own.size()).starts_with('/') : device == own;
    if (!fits || own.size() < best_length) return;
    best = &volume;
    best_length = own.size();
  };
  for (const auto& volume : volumes_) {
    consider(volume, volume.first);
    for (const std::string& other : volume.second.others) consider(volume, other);
  }
  path = best != nullptr && named ? CleanPath(device.substr(best_length)) : "";
  return best;
}

std::string BtrfsLayout::Resolve(const std::string& device, std::string_view options) const {
  std::string path;
  bool named = false;
  const auto* const found = Find(device, path, named);
  if (found == nullptr || found->second.paths.empty()) return device;
  const auto& [own, volume] = *found;
  const auto by_id = [&, &own_device = own, &paths = volume.paths](uint64_t id) {
    const auto known = paths.find(id);
    // No such subvolume: a name that cannot be mounted, and says why.
    return NameOf(own_device, known == paths.end() ? fmt::format("subvolid={}", id) : known->second);
  };
  if (const auto subvolume = Option(options, "subvol=")) return NameOf(own, CleanPath(*subvolume));
  if (const auto text = Option(options, "subvolid=")) {
    if (const auto id = SubvolumeId(*text)) return by_id(*id);
  }
  return named ? NameOf(own, path) : by_id(volume.standard);
}

Result<std::string> BtrfsLayout::ChooseRoot(Appliance& appliance, const std::vector<std::string>& roots) const {
  guestfs_h* const g = appliance.handle();
  std::string chosen;
  const void* filesystem = nullptr;
  for (const std::string& root : roots) {
    std::string path;
    bool named = false;
    const auto* const own = Find(root, path, named);
    if (own == nullptr || (filesystem != nullptr && own != filesystem)) return std::string();
    filesystem = own;
    const auto list = TakeGuestList(guestfs_inspect_get_mountpoints(g, root.c_str()));
    if (!list) return appliance.Failed("cannot tell where the system mounts its filesystems");
    ASSIGN_OR_RETURN(const auto fstab, ReadGuestFstab(appliance, root));
    for (size_t i = 0; i + 1 < list->size(); i += 2) {
      if ((*list)[i] != "/") continue;
      if (Resolve((*list)[i + 1], FstabOptions(fstab, "/")) != Resolve(root, "")) continue;
      if (!chosen.empty()) return std::string();
      chosen = root;
    }
  }
  return chosen;
}

std::map<std::string, std::string> BtrfsLayout::NotMounted(const std::vector<std::string>& mounted) const {
  std::map<std::string, std::vector<std::string>> tops;  // paths that are mounted, by device
  for (const std::string& name : mounted) {
    std::string path;
    bool named = false;
    if (const auto* const found = Find(name, path, named)) tops[found->first].push_back(path);
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
  if (guestfs_mount_options(g, "ro", root.c_str(), "/") != 0) {
    return appliance.Failed(fmt::format("{} cannot be mounted", root));
  }
  std::string text;
  if (guestfs_is_file_opts(g, "/etc/fstab", GUESTFS_IS_FILE_OPTS_FOLLOWSYMLINKS, 1, -1) == 1) {
    size_t size = 0;
    const std::unique_ptr<char, Freer> bytes(guestfs_read_file(g, "/etc/fstab", &size));
    if (bytes != nullptr) text.assign(bytes.get(), size);
  }
  if (guestfs_umount(g, "/") != 0) return appliance.Failed(fmt::format("{} cannot be unmounted", root));
  return ParseFstab(text);
}

std::string_view FstabOptions(const std::vector<FstabLine>& lines, std::string_view path) {
  for (const FstabLine& line : lines) {
    if (line.path == path) return line.options;
  }
  return {};
}

}  // namespace mirage
