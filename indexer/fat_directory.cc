#include "indexer/fat_directory.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "store/encoding.h"

namespace mirage {
namespace {

// A record: 8 bytes of name, 3 of extension, then these.
constexpr size_t kBaseBytes = 8, kShortBytes = 11;
constexpr size_t kAttributesAt = 11, kCaseAt = 12, kClusterHighAt = 20, kTimeAt = 22, kDateAt = 24, kClusterAt = 26,
                 kSizeAt = 28;
constexpr uint8_t kReadOnly = 0x01, kVolumeLabel = 0x08, kDirectory = 0x10, kLongName = 0x0f;
constexpr uint8_t kLowerBase = 0x08, kLowerExtension = 0x10;
constexpr uint8_t kDeleted = 0xe5, kStandsForDeleted = 0x05;

// A part of a long name: its number, 5, 6 and 2 characters, and the short name's checksum.
constexpr uint8_t kLastPart = 0x40;
constexpr size_t kMaxParts = 20, kPartCharacters = 13, kChecksumAt = 13;
constexpr std::array<size_t, kPartCharacters> kCharactersAt{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30};

// Code page 437 from 0x80 on.
constexpr std::array<char16_t, 128> kCodePage{
    0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef, 0x00ee,
    0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9, 0x00ff, 0x00d6,
    0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1, 0x00aa,
    0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb, 0x2591, 0x2592, 0x2593, 0x2502,
    0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b, 0x2510, 0x2514,
    0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550,
    0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559, 0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c,
    0x2588, 0x2584, 0x258c, 0x2590, 0x2580, 0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4,
    0x03a6, 0x0398, 0x03a9, 0x03b4, 0x221e, 0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320,
    0x2321, 0x00f7, 0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0};
// The capitals of it that have a small letter in it, and that letter.
constexpr std::array<std::pair<uint8_t, uint8_t>, 10> kSmallLetters{{{0x80, 0x87},
                                                                     {0x8e, 0x84},
                                                                     {0x8f, 0x86},
                                                                     {0x90, 0x82},
                                                                     {0x92, 0x91},
                                                                     {0x99, 0x94},
                                                                     {0x9a, 0x81},
                                                                     {0xa5, 0xa4},
                                                                     {0xe4, 0xe5},
                                                                     {0xe8, 0xed}}};

uint8_t Small(uint8_t c) {
  if (c >= 'A' && c <= 'Z') return static_cast<uint8_t>(c + ('a' - 'A'));
  for (const auto& [capital, small] : kSmallLetters) {
    if (c == capital) return small;
  }
  return c;
}

void PutUtf8(std::string* out, char32_t c) {
  const auto tail = [&](unsigned shift) { out->push_back(static_cast<char>(0x80 | (c >> shift & 0x3f))); };
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xc0 | c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | c >> 12));
    tail(6);
    tail(0);
  } else {
    out->push_back(static_cast<char>(0xf0 | c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

bool IsHighSurrogate(char16_t c) { return c >= 0xd800 && c < 0xdc00; }
bool IsLowSurrogate(char16_t c) { return c >= 0xdc00 && c < 0xe000; }

// To the first zero. Halves of surrogate pairs that are alone are left out, as the kernel does.
std::string Utf8(const char16_t* text) {
  std::string out;
  for (; *text != 0; ++text) {
    if (IsHighSurrogate(*text) && IsLowSurrogate(text[1])) {
      PutUtf8(&out, 0x10000 + (char32_t{*text} - 0xd800) * 0x400 + (text[1] - 0xdc00));
      ++text;
    } else if (!IsHighSurrogate(*text) && !IsLowSurrogate(*text)) {
      PutUtf8(&out, *text);
    }
  }
  return out;
}

// A base or an extension: to a zero, without the spaces behind it.
void PutShortPart(std::string* out, std::string_view part, bool lower) {
  part = part.substr(0, part.find('\0'));
  part = part.substr(0, part.find_last_not_of(' ') + 1);
  for (const char raw : part) {
    const auto c = static_cast<uint8_t>(raw);
    const uint8_t shown = lower ? Small(c) : c;
    PutUtf8(out, shown < 0x80 ? char32_t{shown} : char32_t{kCodePage[shown - 0x80]});
  }
}

// Empty: spaces alone, which is no name.
std::string ShortName(std::string_view record) {
  std::string raw(record.substr(0, kShortBytes));
  if (static_cast<uint8_t>(raw[0]) == kStandsForDeleted) raw[0] = static_cast<char>(kDeleted);
  const auto lower = static_cast<uint8_t>(record[kCaseAt]);
  std::string name, extension;
  PutShortPart(&name, std::string_view(raw).substr(0, kBaseBytes), (lower & kLowerBase) != 0);
  PutShortPart(&extension, std::string_view(raw).substr(kBaseBytes), (lower & kLowerExtension) != 0);
  if (!extension.empty()) name += "." + extension;
  return name;
}

uint8_t Checksum(std::string_view short_name) {
  uint8_t sum = 0;
  for (const char c : short_name) {
    sum = static_cast<uint8_t>((sum << 7 | sum >> 1) + static_cast<uint8_t>(c));
  }
  return sum;
}

// The parts of a long name as they come, the last one first.
class LongName {
 public:
  void Forget() { whole_ = false, wanted_ = 0; }
  void Take(std::string_view record) {
    const auto number = static_cast<uint8_t>(record[0]), checksum = static_cast<uint8_t>(record[kChecksumAt]);
    if ((number & kLastPart) != 0) {
      Forget();
      const size_t count = number & ~kLastPart;
      if (count == 0 || count > kMaxParts) return;
      wanted_ = count;
      checksum_ = checksum;
      text_[count * kPartCharacters] = 0;
    } else if (wanted_ == 0 || number != wanted_ || checksum != checksum_) {
      return Forget();
    }
    --wanted_;
    for (size_t i = 0; i < kPartCharacters; ++i) {
      text_[wanted_ * kPartCharacters + i] = LoadAt<uint16_t>(record, kCharactersAt[i]);
    }
    whole_ = wanted_ == 0;
  }
  // Whether the parts are all there and belong to this record.
  bool IsOf(std::string_view record) const { return whole_ && Checksum(record.substr(0, kShortBytes)) == checksum_; }
  std::string Text() const { return Utf8(text_.data()); }

 private:
  std::array<char16_t, kMaxParts * kPartCharacters + 1> text_{};
  size_t wanted_ = 0;  // the part that must come next; 0: none
  uint8_t checksum_ = 0;
  bool whole_ = false;
};

}  // namespace

int64_t FatTime(uint16_t date, uint16_t time) {
  using namespace std::chrono;
  const auto day_of_month = std::max<unsigned>(date & 0x1f, 1), number = std::max<unsigned>(date >> 5 & 0xf, 1);
  const year in_year(1980 + (date >> 9));
  // The months 13 to 15 begin with the year, but behind its leap day.
  sys_days day = number <= 12 ? sys_days(in_year / month(number) / 1)
                              : sys_days(in_year / January / 1) + days(in_year.is_leap() ? 1 : 0);
  day += days(day_of_month - 1);
  const seconds in_day = hours(time >> 11) + minutes(time >> 5 & 0x3f) + seconds(2 * (time & 0x1f));
  return (day.time_since_epoch() + in_day) / seconds(1);
}

FatDirectory DecodeFatDirectory(std::string_view bytes, bool wide) {
  FatDirectory directory;
  LongName long_name;
  for (size_t at = 0; at + kFatEntryBytes <= bytes.size(); at += kFatEntryBytes) {
    const std::string_view record = bytes.substr(at, kFatEntryBytes);
    const auto first = static_cast<uint8_t>(record[0]), attributes = static_cast<uint8_t>(record[kAttributesAt]);
    if (first != kDeleted && attributes == kLongName) {
      long_name.Take(record);
      continue;
    }
    if (first == 0 || first == kDeleted || (attributes & kVolumeLabel) != 0) {
      long_name.Forget();
      continue;
    }
    FatEntry entry;
    entry.is_directory = (attributes & kDirectory) != 0;
    if (entry.is_directory) ++directory.directories;
    const bool has_long_name = long_name.IsOf(record);
    entry.name = has_long_name ? long_name.Text() : ShortName(record);
    long_name.Forget();
    const std::string_view short_name = record.substr(0, kShortBytes);
    if (short_name == ".          " || short_name == "..         " || (entry.name.empty() && !has_long_name)) continue;
    entry.read_only = (attributes & kReadOnly) != 0;
    entry.first_cluster = LoadAt<uint16_t>(record, kClusterAt);
    if (wide) entry.first_cluster |= uint32_t{LoadAt<uint16_t>(record, kClusterHighAt)} << 16;
    entry.size = LoadAt<uint32_t>(record, kSizeAt);
    entry.mtime_sec = FatTime(LoadAt<uint16_t>(record, kDateAt), LoadAt<uint16_t>(record, kTimeAt));
    directory.entries.push_back(std::move(entry));
  }
  return directory;
}

}  // namespace mirage
