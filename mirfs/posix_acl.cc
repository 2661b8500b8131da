#include "mirfs/posix_acl.h"

#include <vector>

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr uint32_t kAclVersion = 2;
enum Tag : uint16_t { kUserOwner = 1, kUser = 2, kGroupOwner = 4, kGroup = 8, kMask = 16, kOther = 32 };

struct AclEntry {
  uint16_t tag, permissions;
  uint32_t id;
};

struct Acl {
  std::vector<AclEntry> entries;
  AclEntry* Of(uint16_t tag) {
    for (auto& entry : entries) {
      if (entry.tag == tag) return &entry;
    }
    return nullptr;
  }
  // The entry that stands for the mode's group bits.
  AclEntry* GroupClass() { return Of(kMask) ? Of(kMask) : Of(kGroupOwner); }
  std::string Encode() const {
    std::string out;
    Put<uint32_t>(&out, kAclVersion);
    for (const auto& entry : entries) {
      Put<uint16_t>(&out, entry.tag);
      Put<uint16_t>(&out, entry.permissions);
      Put<uint32_t>(&out, entry.id);
    }
    return out;
  }
};

Result<Acl> Decode(std::string_view bytes) {
  Decoder in(bytes);
  Acl acl;
  if (in.Take<uint32_t>() != kAclVersion) return Fail(EINVAL, "access control list: unknown version");
  while (in.ok() && in.left() > 0) {
    AclEntry entry{};
    entry.tag = in.Take<uint16_t>();
    entry.permissions = in.Take<uint16_t>();
    entry.id = in.Take<uint32_t>();
    acl.entries.push_back(entry);
  }
  if (!in.AtEnd() || !acl.Of(kUserOwner) || !acl.Of(kGroupOwner) || !acl.Of(kOther)) {
    return Fail(EINVAL, "access control list: malformed");
  }
  return acl;
}

uint16_t ModeOf(Acl& acl, uint16_t mode) {
  return static_cast<uint16_t>((mode & ~0777) | (acl.Of(kUserOwner)->permissions & 7) << 6 |
                               (acl.GroupClass()->permissions & 7) << 3 | (acl.Of(kOther)->permissions & 7));
}

bool IsMinimal(const Acl& acl) {
  for (const auto& entry : acl.entries) {
    if (entry.tag == kUser || entry.tag == kGroup || entry.tag == kMask) return false;
  }
  return true;
}

}  // namespace

Result<uint16_t> ModeFromAcl(std::string_view bytes, uint16_t mode, bool* minimal) {
  ASSIGN_OR_RETURN(auto acl, Decode(bytes));
  *minimal = IsMinimal(acl);
  return ModeOf(acl, mode);
}

Result<std::string> AclWithMode(std::string_view bytes, uint16_t mode) {
  ASSIGN_OR_RETURN(auto acl, Decode(bytes));
  acl.Of(kUserOwner)->permissions = static_cast<uint16_t>(mode >> 6 & 7);
  acl.GroupClass()->permissions = static_cast<uint16_t>(mode >> 3 & 7);
  acl.Of(kOther)->permissions = static_cast<uint16_t>(mode & 7);
  return acl.Encode();
}

Result<InheritedAcl> InheritAcl(std::string_view bytes, uint16_t mode) {
  ASSIGN_OR_RETURN(auto acl, Decode(bytes));
  const auto restrict = [](AclEntry* entry, int bits) { entry->permissions = static_cast<uint16_t>(entry->permissions & bits); };
  restrict(acl.Of(kUserOwner), mode >> 6 & 7);
  restrict(acl.GroupClass(), mode >> 3 & 7);
  restrict(acl.Of(kOther), mode & 7);
  return InheritedAcl{ModeOf(acl, mode), IsMinimal(acl) ? std::string() : acl.Encode()};
}

}  // namespace mirage
