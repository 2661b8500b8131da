#include "indexer/guest_keys.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>

#include "indexer/libguestfs.h"

namespace mirage {
namespace {

constexpr size_t kMaxKeyBytes = 1 << 20;
constexpr int kMaxDepth = 4;  // LUKS in LVM in LUKS

bool SameUuid(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

Result<std::map<std::string, std::string>> ListFilesystems(Appliance& appliance) {
  guestfs_h* const g = appliance.handle();
  const auto list = TakeGuestList(Guestfs().list_filesystems(g));
  if (!list) return appliance.Failed("cannot list the filesystems");
  std::map<std::string, std::string> found;
  for (size_t i = 0; i + 1 < list->size(); i += 2) found[(*list)[i]] = (*list)[i + 1];
  for (const auto lister : {Guestfs().list_devices, Guestfs().list_partitions, Guestfs().list_md_devices,
                            Guestfs().list_dm_devices, Guestfs().lvs}) {
    const auto devices = TakeGuestList(lister(g));
    if (!devices) return appliance.Failed("cannot list the devices");
    for (const std::string& device : *devices) {
      if (const auto known = found.find(device); known != found.end() && known->second != "unknown") continue;
      const GuestText type(Guestfs().vfs_type(g, device.c_str()));
      if (type && IsEncryptedType(type.get())) found[device] = type.get();
    }
  }
  return found;
}

Result<GuestKeyText> SplitGuestKey(std::string_view text) {
  // A device of LVM or a UUID has no colon.
  const size_t first = text.find(':');
  const size_t second = first == text.npos ? first : text.find(':', first + 1);
  const std::string_view kind = second == text.npos ? "" : text.substr(first + 1, second - first - 1);
  if (first == 0 || (kind != "key" && kind != "file") || second + 1 == text.size()) {
    return Fail(EINVAL, "write ID:key:KEY or ID:file:FILENAME, where ID is a device, a UUID or all");
  }
  return GuestKeyText{std::string(text.substr(0, first)), std::string(text.substr(second + 1)), kind == "file"};
}

Result<std::vector<GuestKey>> ParseGuestKeys(const std::vector<std::string>& texts) {
  std::vector<GuestKey> keys;
  for (const std::string& text : texts) {
    auto parts = SplitGuestKey(text);
    if (!parts) return Annotate(std::move(parts).error(), "--key");
    GuestKey key{std::move(parts->id), std::move(parts->value)};
    if (parts->is_file) {
      const std::string path = key.key;
      std::ifstream file(path, std::ios::binary);
      if (!file) return FailErrno(errno, "--key: " + path);
      key.key.assign(std::istreambuf_iterator<char>(file), {});
      if (key.key.ends_with('\n')) key.key.pop_back();
      if (key.key.empty() || key.key.size() > kMaxKeyBytes || key.key.find('\0') != std::string::npos) {
        return Fail(EINVAL, "--key: {} holds no passphrase", path);
      }
    }
    keys.push_back(std::move(key));
  }
  return keys;
}

Result<std::set<std::string>> OpenEncrypted(Appliance& appliance, const std::vector<GuestKey>& keys, ImportSink& sink) {
  guestfs_h* const g = appliance.handle();
  if (keys.empty()) return std::set<std::string>();
  std::set<std::string> seen, opened, used, there;
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    ASSIGN_OR_RETURN(const auto filesystems, ListFilesystems(appliance));
    bool any = false;
    for (const auto& [device, type] : filesystems) {
      if (!IsEncryptedType(type)) continue;
      if (!seen.insert(device).second) continue;
      const GuestText text(Guestfs().vfs_uuid(g, device.c_str()));
      const std::string uuid = text ? text.get() : "";
      there.insert(uuid.empty() ? device : device + " (" + uuid + ")");
      bool fits = false, open = false;
      for (const GuestKey& key : keys) {
        if (key.id != "all" && key.id != device && !(SameUuid(key.id, uuid) && !uuid.empty())) continue;
        fits = true;
        used.insert(key.id);
        std::string name = "clear-";
        for (const char c : device.substr(5)) name += c == '/' ? '-' : c;
        if (Guestfs().cryptsetup_open(g, device.c_str(), key.key.c_str(), name.c_str(),
                                         GUESTFS_CRYPTSETUP_OPEN_READONLY, 1, -1) == 0) {
          open = any = true;
          opened.insert(device);
          sink.Say(fmt::format("{} is decrypted; its files lie in clear in the library", device));
          break;
        }
        if (appliance.interrupted()) return appliance.Failed("");
      }
      if (fits && !open) {
        return Fail(EINVAL, "no --key opens {} ({}, UUID {}); is the passphrase right?", device, type, uuid);
      }
    }
    if (!any) break;
    if (Guestfs().lvm_scan(g, 1) != 0) return appliance.Failed("cannot look for LVM in what was decrypted");
  }
  for (const GuestKey& key : keys) {
    if (used.contains(key.id)) continue;
    std::string names;
    for (const std::string& name : there) names += (names.empty() ? "" : ", ") + name;
    return Fail(EINVAL, "--key is for {}, but {}{}", key.id,
                there.empty() ? "nothing on it is encrypted" : "what is encrypted on it is ", names);
  }
  return opened;
}

}  // namespace mirage
