// POSIX access control lists in the kernel's binary xattr form (system.posix_acl_access, system.posix_acl_default):
// keeping a file's mode in step with its list, and what a new file inherits. No checks of access: they are the kernel's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "store/result.h"

namespace mirage {

inline constexpr std::string_view kAclAccess = "system.posix_acl_access";
inline constexpr std::string_view kAclDefault = "system.posix_acl_default";

// The 07777 bits after an access list was set on a file of `mode`. `*minimal`: the list says no more than the mode does,
// and need not be kept. EINVAL: not an access control list.
Result<uint16_t> ModeFromAcl(std::string_view acl, uint16_t mode, bool* minimal);
// The list after a chmod.
Result<std::string> AclWithMode(std::string_view acl, uint16_t mode);
// What a file created with `mode` under a directory with the default list `acl` gets: its mode, and its access list
// (empty when minimal).
struct InheritedAcl {
  uint16_t mode = 0;
  std::string access;
};
Result<InheritedAcl> InheritAcl(std::string_view acl, uint16_t mode);

}  // namespace mirage
