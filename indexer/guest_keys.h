// Keys to encrypted disks, as guestfish takes them: ID:key:KEY or ID:file:FILENAME, where ID is a device's name in the
// appliance ("/dev/sda2"), the UUID of the encrypted filesystem, or `all`.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "indexer/appliance.h"
#include "indexer/image_source.h"

namespace mirage {

struct GuestKey {
  std::string id, key;
};
// The parts of "ID:key:KEY" and "ID:file:FILENAME". EINVAL: not of that form.
struct GuestKeyText {
  std::string id, value;
  bool is_file = false;
};
Result<GuestKeyText> SplitGuestKey(std::string_view text);

// EINVAL: not of that form. ENOENT, EACCES: of the file, whose last newline is no part of the key.
Result<std::vector<GuestKey>> ParseGuestKeys(const std::vector<std::string>& texts);

// What is on the disks, by device: filesystems, swap, and encrypted volumes, which libguestfs leaves out of its own
// list. A device may be one of libguestfs's mountables.
Result<std::map<std::string, std::string>> ListFilesystems(Appliance& appliance);

inline bool IsEncryptedType(std::string_view type) { return type == "crypto_LUKS" || type == "BitLocker"; }

// Opens what the keys open, read-only, encrypted volumes inside of others too; gives the devices that it opened, and tells the user that their files will
// lie in clear. EINVAL: a key that opens nothing that it names, or names nothing that is there.
Result<std::set<std::string>> OpenEncrypted(Appliance& appliance, const std::vector<GuestKey>& keys, ImportSink& sink);

}  // namespace mirage
