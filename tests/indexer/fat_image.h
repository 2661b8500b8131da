// FAT filesystems made byte by byte: valid ones, with what no tool writes, and such as are made to do harm. Sectors and
// clusters of 512 bytes, two FATs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mirage::testing {

class FatImage {
 public:
  static constexpr uint32_t kClusterBytes = 512, kRoot = 0;
  static constexpr uint8_t kReadOnly = 0x01, kHidden = 0x02, kSystem = 0x04, kLabel = 0x08, kDirectory = 0x10;

  // `bits`: 12, 16 or 32. `clusters`: 0: some 700; of FAT16 thousands, for else it is none.
  explicit FatImage(int bits, uint32_t clusters = 0);

  std::string bytes;  // the whole, to be patched at will

  struct Record {
    std::string short_name;    // 11 bytes
    std::u16string long_name;  // empty: none
    uint8_t attributes = 0x20, lower = 0;
    uint16_t date = 0x58cf, time = 0x63c5;  // 2024-06-15 12:30:10
    uint32_t cluster = 0, size = 0;
  };
  static std::string Encode(const Record& record);
  // The parts of a long name, the last one first. `checksum`: of the short name that follows.
  static std::string LongName(std::u16string_view name, uint8_t checksum);
  static uint8_t Checksum(std::string_view short_name);

  // Into a directory, by its first cluster. Of a directory "." and ".." are made, of a file its clusters.
  void Append(uint32_t directory, std::string_view records);
  uint32_t AddDirectory(uint32_t parent, Record record);
  uint32_t AddFile(uint32_t parent, Record record, std::string_view data, bool backwards = false);

  uint32_t Allocate();
  void SetNext(uint32_t cluster, uint32_t value);
  uint32_t End() const { return bits_ == 12 ? 0xfff : bits_ == 16 ? 0xffff : 0x0fffffff; }
  uint32_t Bad() const { return End() - 8; }
  size_t PlaceOf(uint32_t cluster) const { return data_at_ + size_t{cluster - 2} * kClusterBytes; }
  uint32_t clusters() const { return clusters_; }
  // The place of the record that has this short name.
  size_t Find(std::string_view short_name) const;
  template <typename T>
  void Patch(size_t at, T value) {
    bytes.replace(at, sizeof value, reinterpret_cast<const char*>(&value), sizeof value);
  }

 private:
  const int bits_;
  const uint32_t clusters_;
  uint32_t next_free_ = 2, root_cluster_ = 0;
  size_t fat_at_ = 0, fat_bytes_ = 0, root_at_ = 0, data_at_ = 0;
  struct Directory {
    std::vector<uint32_t> clusters;
    size_t used = 0;
  };
  std::map<uint32_t, Directory> directories_;
};

// A valid filesystem with everything in it that a directory can say, and a directory of this machine filled with what
// Linux makes of it.
FatImage OddFatImage(int bits);
void FillOddFatTree(const std::string& directory);

}  // namespace mirage::testing
