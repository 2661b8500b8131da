// The installed packages of an rpm database of the sqlite kind (rpm 4.16 and later: Fedora, RHEL 9, openSUSE). The file
// comes from an image: it is parsed by the disk reader's sandboxed process, and what that sends is decoded as hostile
// bytes. Databases of the older kinds, Berkeley DB and ndb, are not read.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "indexer/system_description.h"

namespace mirage {

constexpr uint64_t kMaxRpmDatabaseBytes = 256 << 20;
constexpr size_t kMaxRpmHeaderBytes = 32 << 20;
constexpr size_t kMaxRpmPackages = 100'000;

// Where a system keeps it, from its root.
inline constexpr const char* kRpmDatabasePaths[] = {"/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite"};
// The other kinds, of which is said that they are not read.
inline constexpr const char* kOtherRpmDatabasePaths[] = {"/var/lib/rpm/Packages", "/usr/lib/sysimage/rpm/Packages",
                                                         "/var/lib/rpm/Packages.db",
                                                         "/usr/lib/sysimage/rpm/Packages.db"};

// `file`: the database, borrowed, to be read from its start. EIO: not such a database, or damaged. EINTR.
Result<std::vector<Package>> ReadRpmDatabase(int file, const std::atomic<bool>* interrupted);
// The same of bytes.
Result<std::vector<Package>> ReadRpmDatabase(std::string_view bytes, const std::atomic<bool>* interrupted);

// Name, [EPOCH:]VERSION-RELEASE and architecture of a header as the database has it: u32 count, u32 length, count times
// (tag, type, offset, count), data; all big-endian. EIO.
Result<Package> ParseRpmHeader(std::string_view header);

}  // namespace mirage
