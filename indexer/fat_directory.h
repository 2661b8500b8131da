// What a directory of a FAT filesystem says, from its bytes alone, as Linux's vfat shows it when it is mounted with the
// options of IMPORT.md. No I/O, and nothing that grows but with the bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mirage {

constexpr size_t kFatEntryBytes = 32;

struct FatEntry {
  std::string name;  // UTF-8; any bytes but NUL: it may be empty, a dot, or have slashes in it
  bool is_directory = false, read_only = false;
  uint32_t first_cluster = 0, size = 0;
  int64_t mtime_sec = 0;
};

struct FatDirectory {
  std::vector<FatEntry> entries;  // in their order, without "." and ".."
  uint32_t directories = 0;       // with them, as the kernel counts
};

// `wide`: FAT32, whose numbers of clusters have 32 bits. A name is the long one, where the records before the short one
// make one: all of them, in descending order, with the short name's checksum; else the short one (code page 437, in
// lower case where the record's two bits say so). Records that are free, deleted, volume labels or parts of no name
// are passed over wherever they are: a free one is not the end to Linux.
FatDirectory DecodeFatDirectory(std::string_view bytes, bool wide);

// Seconds since 1970 of a date and a time of day, from 1980 to 2107, in steps of two seconds. Days and months out of
// range are what Linux makes of them.
int64_t FatTime(uint16_t date, uint16_t time);

}  // namespace mirage
