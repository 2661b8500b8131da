#include "tests/indexer/fat_image.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace mirage::testing {
namespace {

constexpr size_t kSectorBytes = 512, kRecordBytes = 32, kRootRecords = 512;

uint32_t Clusters(int bits, uint32_t wanted) {
  if (wanted == 0) wanted = 700;
  return bits == 16 ? std::max(wanted, 4200U) : wanted;
}

}  // namespace

FatImage::FatImage(int bits, uint32_t clusters) : bits_(bits), clusters_(Clusters(bits, clusters)) {
  const size_t reserved = bits == 32 ? 8 : 1;
  const size_t fat_sectors = ((clusters_ + 2) * static_cast<size_t>(bits) / 8 + kSectorBytes) / kSectorBytes;
  fat_at_ = reserved * kSectorBytes;
  fat_bytes_ = fat_sectors * kSectorBytes;
  root_at_ = fat_at_ + 2 * fat_bytes_;
  data_at_ = root_at_ + (bits == 32 ? 0 : kRootRecords * kRecordBytes);
  bytes.assign(data_at_ + size_t{clusters_} * kClusterBytes, '\0');
  const size_t sectors = bytes.size() / kSectorBytes;
  bytes.replace(0, 11, "\xeb\x3c\x90MIRAGE  ", 11);
  Patch<uint16_t>(11, kSectorBytes);
  Patch<uint8_t>(13, 1);
  Patch<uint16_t>(14, static_cast<uint16_t>(reserved));
  Patch<uint8_t>(16, 2);
  if (bits != 32) Patch<uint16_t>(17, kRootRecords);
  if (bits != 32) Patch<uint16_t>(19, static_cast<uint16_t>(sectors));
  if (bits == 32) Patch<uint32_t>(32, static_cast<uint32_t>(sectors));
  Patch<uint8_t>(21, 0xf8);
  const size_t more = bits == 32 ? 64 : 36;  // the fields behind those of FAT32
  if (bits == 32) {
    Patch<uint32_t>(36, static_cast<uint32_t>(fat_sectors));
    Patch<uint16_t>(48, 1);
    Patch<uint16_t>(50, 6);
  } else {
    Patch<uint16_t>(22, static_cast<uint16_t>(fat_sectors));
  }
  Patch<uint8_t>(more, 0x80);
  Patch<uint8_t>(more + 2, 0x29);
  Patch<uint32_t>(more + 3, 0x1234abcd);
  bytes.replace(more + 7, 11, "NO NAME    ");
  bytes.replace(more + 18, 8, fmt::format("FAT{}   ", bits));
  Patch<uint16_t>(510, 0xaa55);
  SetNext(0, End() - 0xff + 0xf8);
  SetNext(1, End());
  if (bits == 32) {
    Patch<uint32_t>(kSectorBytes, 0x41615252);
    Patch<uint32_t>(kSectorBytes + 484, 0x61417272);
    Patch<uint32_t>(kSectorBytes + 488, 0xffffffff);
    Patch<uint32_t>(kSectorBytes + 492, 0xffffffff);
    Patch<uint16_t>(kSectorBytes + 510, 0xaa55);
    root_cluster_ = Allocate();
    Patch<uint32_t>(44, root_cluster_);
    directories_[kRoot].clusters = {root_cluster_};
    bytes.replace(6 * kSectorBytes, 2 * kSectorBytes, bytes.substr(0, 2 * kSectorBytes));
  }
}

void FatImage::SetNext(uint32_t cluster, uint32_t value) {
  for (const size_t copy : {fat_at_, fat_at_ + fat_bytes_}) {
    if (bits_ == 32) Patch<uint32_t>(copy + cluster * 4, value);
    if (bits_ == 16) Patch<uint16_t>(copy + cluster * 2, static_cast<uint16_t>(value));
    if (bits_ != 12) continue;
    const size_t at = copy + cluster * 3 / 2;
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[at + i]); };
    if (cluster % 2 == 0) {
      Patch<uint8_t>(at, static_cast<uint8_t>(value));
      Patch<uint8_t>(at + 1, static_cast<uint8_t>((byte(1) & 0xf0) | (value >> 8 & 0x0f)));
    } else {
      Patch<uint8_t>(at, static_cast<uint8_t>((byte(0) & 0x0f) | (value << 4 & 0xf0)));
      Patch<uint8_t>(at + 1, static_cast<uint8_t>(value >> 4));
    }
  }
}

uint32_t FatImage::Allocate() {
  if (next_free_ >= clusters_ + 2) throw std::runtime_error("the FAT is full");
  SetNext(next_free_, End());
  return next_free_++;
}

uint8_t FatImage::Checksum(std::string_view short_name) {
  uint8_t sum = 0;
  for (const char c : short_name) sum = static_cast<uint8_t>(((sum & 1) << 7) + (sum >> 1) + static_cast<uint8_t>(c));
  return sum;
}

std::string FatImage::LongName(std::u16string_view name, uint8_t checksum) {
  constexpr std::array<size_t, 13> kAt{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30};
  std::string parts;
  const size_t count = (name.size() + kAt.size() - 1) / kAt.size();
  for (size_t part = count; part > 0; --part) {
    std::string record(kRecordBytes, '\0');
    record[0] = static_cast<char>(part | (part == count ? 0x40 : 0));
    record[11] = 0x0f;
    record[13] = static_cast<char>(checksum);
    for (size_t i = 0; i < kAt.size(); ++i) {
      const size_t at = (part - 1) * kAt.size() + i;
      const char16_t c = at < name.size() ? name[at] : at == name.size() ? u'\0' : u'\xffff';
      record[kAt[i]] = static_cast<char>(c & 0xff);
      record[kAt[i] + 1] = static_cast<char>(c >> 8);
    }
    parts += record;
  }
  return parts;
}

std::string FatImage::Encode(const Record& record) {
  std::string out(kRecordBytes, '\0');
  const auto put16 = [&](size_t at, uint32_t value) {
    out[at] = static_cast<char>(value & 0xff);
    out[at + 1] = static_cast<char>(value >> 8 & 0xff);
  };
  if (record.short_name.size() != 11) throw std::runtime_error("a short name has 11 bytes");
  out.replace(0, 11, record.short_name);
  out[11] = static_cast<char>(record.attributes);
  out[12] = static_cast<char>(record.lower);
  put16(16, record.date);
  put16(18, record.date);
  put16(20, record.cluster >> 16);
  put16(22, record.time);
  put16(24, record.date);
  put16(26, record.cluster);
  put16(28, record.size);
  put16(30, record.size >> 16);
  return LongName(record.long_name, Checksum(record.short_name)) + out;
}

void FatImage::Append(uint32_t directory, std::string_view records) {
  Directory& to = directories_[directory];
  for (; !records.empty(); records.remove_prefix(kRecordBytes)) {
    size_t place = root_at_ + to.used;
    if (directory != kRoot || bits_ == 32) {
      if (to.used == to.clusters.size() * kClusterBytes) {
        to.clusters.push_back(Allocate());
        SetNext(to.clusters[to.clusters.size() - 2], to.clusters.back());
      }
      place = PlaceOf(to.clusters[to.used / kClusterBytes]) + to.used % kClusterBytes;
    } else if (to.used == kRootRecords * kRecordBytes) {
      throw std::runtime_error("the root directory is full");
    }
    bytes.replace(place, kRecordBytes, records.substr(0, kRecordBytes));
    to.used += kRecordBytes;
  }
}

uint32_t FatImage::AddDirectory(uint32_t parent, Record record) {
  const uint32_t cluster = Allocate();
  directories_[cluster].clusters = {cluster};
  record.attributes = static_cast<uint8_t>((record.attributes & ~0x20) | kDirectory);
  record.cluster = cluster;
  Append(parent, Encode(record));
  Record dot = record;
  dot.long_name.clear();
  dot.attributes = kDirectory;
  dot.short_name = ".          ";
  Append(cluster, Encode(dot));
  dot.short_name = "..         ";
  dot.cluster = parent;
  Append(cluster, Encode(dot));
  return cluster;
}

uint32_t FatImage::AddFile(uint32_t parent, Record record, std::string_view data, bool backwards) {
  std::vector<uint32_t> chain;
  for (size_t at = 0; at < data.size(); at += kClusterBytes) chain.push_back(Allocate());
  if (backwards) std::reverse(chain.begin(), chain.end());
  for (size_t i = 0; i < chain.size(); ++i) {
    SetNext(chain[i], i + 1 < chain.size() ? chain[i + 1] : End());
    const std::string_view piece = data.substr(i * kClusterBytes, kClusterBytes);
    bytes.replace(PlaceOf(chain[i]), piece.size(), piece);
  }
  record.cluster = chain.empty() ? 0 : chain.front();
  record.size = static_cast<uint32_t>(data.size());
  Append(parent, Encode(record));
  return record.cluster;
}

size_t FatImage::Find(std::string_view short_name) const {
  for (size_t at = root_at_; at + kRecordBytes <= bytes.size(); at += kRecordBytes) {
    if (std::string_view(bytes).substr(at, short_name.size()) == short_name) return at;
  }
  throw std::runtime_error("no such record");
}

// ---- The odd tree

namespace {

struct OddFile {
  FatImage::Record record;
  std::string shown;  // what Linux shows
  std::string data;
  int64_t mtime = 1718454610;
  std::string before;  // records in front of it
  bool backwards = false;
};

std::string Pattern(size_t size) {
  std::string data(size, '\0');
  for (size_t i = 0; i < size; ++i) data[i] = static_cast<char>(i / 512 * 7 + i);
  return data;
}

std::vector<OddFile> OddFiles() {
  using Record = FatImage::Record;
  const std::string free(kRecordBytes, '\0');
  std::string deleted = FatImage::Encode({.short_name = "DELETE~1TXT", .long_name = u"deleted file.txt"});
  for (size_t at = 0; at < deleted.size(); at += kRecordBytes) deleted[at] = '\xe5';
  const std::string label = FatImage::Encode({.short_name = "A LABEL    ", .long_name = {}, .attributes = 0x08});
  // Two parts of three; two with a third between that begins anew; a whole name of another file.
  const std::string other = FatImage::LongName(u"a long name of some three parts ..", 0x11);
  std::string anew = FatImage::LongName(u"twenty-six characters long", FatImage::Checksum("ANEW       "));
  anew[0] = '\x43';                             // there is no part 2 of 3 behind it
  const std::u16string longest(85, u'\u8a9e');  // 255 bytes, which this machine's filesystems can hold too

  std::vector<OddFile> files;
  const auto add = [&](Record record, std::string shown, std::string data = "x") -> OddFile& {
    files.push_back({std::move(record), std::move(shown), std::move(data), 1718454610, {}, false});
    return files.back();
  };
  add({.short_name = "GRUB    CFG", .long_name = {}}, "GRUB.CFG");
  add({.short_name = "LOWER   TXT", .long_name = {}, .lower = 0x18}, "lower.txt");
  add({.short_name = "BASE    TXT", .long_name = {}, .lower = 0x08}, "base.TXT");
  add({.short_name = "EXT     TXT", .long_name = {}, .lower = 0x10}, "EXT.txt");
  add({.short_name = "NOEXT      ", .long_name = {}}, "NOEXT");
  add({.short_name = "A B     C D", .long_name = {}}, "A B.C D");
  add({.short_name = "        EXT", .long_name = {}}, ".EXT");
  add({.short_name = "\x05IGMA   TXT", .long_name = {}}, "\u03c3IGMA.TXT");
  add({.short_name = "\x8e\x99\x9a\x80\x90   \xa5\x92 ", .long_name = {}},
      "\u00c4\u00d6\u00dc\u00c7\u00c9.\u00d1\u00c6");
  add({.short_name = "\x8e\x99\x9a\x80\x90   \xa5\x92\x8f", .long_name = {}, .lower = 0x18},
      "\u00e4\u00f6\u00fc\u00e7\u00e9.\u00f1\u00e6\u00e5");
  add({.short_name = "\xe2\xe4\xe8\xea\xff   \xe1  ", .long_name = {}, .lower = 0x18},
      "\u0393\u03c3\u03c6\u03a9\u00a0.\u00df");
  add({.short_name = "SMILE~1 TXT", .long_name = u"\U0001f600 smile.TXT"}, "\U0001f600 smile.TXT");
  add({.short_name = "TRAIL~1    ", .long_name = u" a space in front, .dots. in it"},
      " a space in front, .dots. in it");
  std::string longest_shown;
  for (size_t i = 0; i < longest.size(); ++i) longest_shown += "\u8a9e";
  add({.short_name = "LONGES~1   ", .long_name = longest}, longest_shown);
  add({.short_name = "THIRTE~1   ", .long_name = u"thirteen chrs"}, "thirteen chrs");
  std::u16string halves = u"ha-l-ves";
  halves[2] = 0xd83d;  // alone, in front of another character
  halves[4] = 0xde00;  // alone
  add({.short_name = "HALVES~1   ", .long_name = halves}, "halves");
  add({.short_name = "WRONG~1 SUM", .long_name = {}}, "WRONG~1.SUM").before = FatImage::LongName(u"not mine", 0x77);
  add({.short_name = "ORPHAN  TXT", .long_name = {}}, "ORPHAN.TXT").before = other.substr(0, 2 * kRecordBytes);
  add({.short_name = "ANEW       ", .long_name = {}}, "ANEW").before = anew;
  add({.short_name = "ANEW2~1    ", .long_name = u"begun anew"}, "begun anew").before = other.substr(0, kRecordBytes);
  add({.short_name = "AFTER   DEL", .long_name = {}}, "AFTER.DEL").before = deleted + label;
  add({.short_name = "READONLY   ", .long_name = {}, .attributes = 0x21}, "READONLY");
  add({.short_name = "IO      SYS", .long_name = {}, .attributes = 0x26}, "IO.SYS");
  add({.short_name = "EMPTY      ", .long_name = {}}, "EMPTY", "");
  add({.short_name = "CLUSTER    ", .long_name = {}}, "CLUSTER", Pattern(512));
  add({.short_name = "CLUSTER1   ", .long_name = {}}, "CLUSTER1", Pattern(513));
  add({.short_name = "WHOLE      ", .long_name = {}}, "WHOLE", Pattern(20'000));
  add({.short_name = "PIECES     ", .long_name = {}}, "PIECES", Pattern(20'000)).backwards = true;
  add({.short_name = "YEAR1980   ", .long_name = {}, .date = 0, .time = 0}, "YEAR1980").mtime = 315532800;
  add({.short_name = "YEAR2107   ", .long_name = {}, .date = 0xff9f, .time = 0xbf7d}, "YEAR2107").mtime = 4354819198;
  add({.short_name = "LEAPDAY    ", .long_name = {}, .date = 0x585d, .time = 0}, "LEAPDAY").mtime = 1709164800;
  // The 30th of February, at 31:63:62; the 15th month of a leap year and of another.
  add({.short_name = "FEB30      ", .long_name = {}, .date = 0x585e, .time = 0xffff}, "FEB30").mtime = 1709366642;
  add({.short_name = "MONTH15    ", .long_name = {}, .date = 0x59e1, .time = 0}, "MONTH15").mtime = 1704153600;
  add({.short_name = "MONTH13    ", .long_name = {}, .date = 0x5ba1, .time = 0}, "MONTH13").mtime = 1735689600;
  add({.short_name = "AFTER   ALL", .long_name = {}}, "AFTER.ALL").before = free;
  return files;
}

constexpr int kMany = 200;
std::string ManyName(int i) { return fmt::format("one of many with a long name {}", i); }
constexpr int kDeep = 20;

}  // namespace

FatImage OddFatImage(int bits) {
  FatImage image(bits);
  for (const OddFile& file : OddFiles()) {
    image.Append(FatImage::kRoot, file.before);
    image.AddFile(FatImage::kRoot, file.record, file.data, file.backwards);
  }
  const uint32_t many =
      image.AddDirectory(FatImage::kRoot, {.short_name = "MANY       ", .long_name = {}, .attributes = 0x01});
  for (int i = 0; i < kMany; ++i) {
    const std::string name = ManyName(i);
    image.AddFile(many, {.short_name = fmt::format("MANY~{:<6}", i), .long_name = {name.begin(), name.end()}},
                  i % 3 == 0 ? name : "");
  }
  uint32_t above = FatImage::kRoot;
  for (int i = 0; i < kDeep; ++i)
    above = image.AddDirectory(above, {.short_name = "DEEP       ", .long_name = {}, .lower = 0x08});
  image.AddFile(above, {.short_name = "BOTTOM     ", .long_name = {}}, "bottom");
  return image;
}

void FillOddFatTree(const std::string& directory) {
  const auto stamp = [](const std::string& path, mode_t mode, int64_t mtime) {
    const timespec times[2] = {{mtime, 0}, {mtime, 0}};
    if (chmod(path.c_str(), mode) != 0 || utimensat(AT_FDCWD, path.c_str(), times, 0) != 0) {
      throw std::runtime_error(path);
    }
  };
  const auto write = [&](const std::string& path, const std::string& data, mode_t mode, int64_t mtime) {
    std::ofstream(path, std::ios::binary) << data;
    stamp(path, mode, mtime);
  };
  const int64_t usual = OddFile().mtime;
  for (const OddFile& file : OddFiles()) {
    write(directory + "/" + file.shown, file.data, (file.record.attributes & FatImage::kReadOnly) != 0 ? 0555 : 0755,
          file.mtime);
  }
  std::filesystem::create_directory(directory + "/MANY");
  for (int i = 0; i < kMany; ++i) {
    const std::string name = ManyName(i);
    write(directory + "/MANY/" + name, i % 3 == 0 ? name : "", 0755, usual);
  }
  stamp(directory + "/MANY", 0755, usual);
  std::string deep = directory;
  for (int i = 0; i < kDeep; ++i) std::filesystem::create_directory(deep += "/deep");
  write(deep + "/BOTTOM", "bottom", 0755, usual);
  for (; deep != directory; deep = deep.substr(0, deep.rfind('/'))) stamp(deep, 0755, usual);
  stamp(directory, 0755, 0);
}

}  // namespace mirage::testing
