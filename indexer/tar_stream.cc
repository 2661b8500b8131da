#include "indexer/tar_stream.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

namespace mirage {
namespace {

constexpr size_t kBlockBytes = 512;
constexpr uint64_t kMaxExtensionBytes = 8 << 20;  // one member's names and attributes
constexpr size_t kSkipBytes = 64 << 10;
constexpr uint32_t kNanoseconds = 1'000'000'000;
constexpr size_t kMaxSparsePieces = 1 << 20;
constexpr std::string_view kXattrPrefix = "SCHILY.xattr.";

// Offsets of ustar fields.
struct Field {
  size_t offset, size;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12}, kMtime{136, 12},
    kChecksum{148, 8}, kLinkName{157, 100}, kMajor{329, 8}, kMinor{337, 8}, kPrefix{345, 155};
constexpr size_t kTypeOffset = 156, kMagicOffset = 257;
// GNU tar's own sparse members: four pieces and the file's size in the header, then blocks of 21 pieces.
constexpr size_t kOldSparseOffset = 386, kOldSparseCount = 4, kOldExtendedOffset = 482, kBlockSparseCount = 21,
                 kBlockExtendedOffset = 504, kOldNumberBytes = 12;
constexpr Field kOldRealSize{483, 12};

using Header = std::array<char, kBlockBytes>;

tl::unexpected<Error> Damaged(std::string_view what) { return Fail(EIO, "the stream of files is damaged: {}", what); }

std::string Text(const Header& header, Field field) {
  return {header.data() + field.offset, strnlen(header.data() + field.offset, field.size)};
}

// Octal digits, or GNU's binary form with the highest bit set (two's complement, big-endian).
Result<int64_t> Number(const Header& header, Field field) {
  std::string_view text(header.data() + field.offset, field.size);
  if ((static_cast<uint8_t>(text[0]) & 0x80) != 0) {
    const bool negative = static_cast<uint8_t>(text[0]) == 0xff;
    uint64_t value = negative ? ~uint64_t{0} : static_cast<uint8_t>(text[0]) & 0x7f;
    for (const char c : text.substr(1)) value = value << 8 | static_cast<uint8_t>(c);
    return static_cast<int64_t>(value);
  }
  text = text.substr(0, text.find('\0'));
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  int64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '7') return Damaged("a number is not octal");
    value = value * 8 + (c - '0');
  }
  return value;
}

bool ChecksumHolds(const Header& header) {
  uint64_t sum = 0;
  for (size_t i = 0; i < header.size(); ++i) {
    const bool own = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size;
    sum += own ? ' ' : static_cast<uint8_t>(header[i]);
  }
  const auto stored = Number(header, kChecksum);
  return stored && static_cast<uint64_t>(*stored) == sum;
}

template <typename T>
bool ParseDecimal(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// "-1.500000001" is one and a half seconds before the epoch: sec -2, nsec 499999999.
bool ParseTime(std::string_view text, Entry& entry) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const size_t dot = std::min(text.find('.'), text.size());
  int64_t seconds;
  if (!ParseDecimal(text.substr(0, dot), seconds) || seconds < 0) return false;
  std::string fraction(dot < text.size() ? text.substr(dot + 1, 9) : "");
  fraction.resize(9, '0');
  uint32_t nanoseconds;
  if (!ParseDecimal(fraction, nanoseconds)) return false;
  entry.mtime_sec = negative ? -seconds : seconds;
  entry.mtime_nsec = nanoseconds;
  if (negative && nanoseconds > 0) {
    --entry.mtime_sec;
    entry.mtime_nsec = kNanoseconds - nanoseconds;
  }
  return true;
}

// GNU tar writes '%' and '=' in attribute names as %25 and %3D, and nothing else.
std::string UnescapeXattrName(std::string_view name) {
  std::string out;
  for (size_t i = 0; i < name.size(); ++i) {
    const std::string_view rest = name.substr(i);
    if (rest.starts_with("%25") || rest.starts_with("%3D")) {
      out += rest[1] == '2' ? '%' : '=';
      i += 2;
    } else {
      out += name[i];
    }
  }
  return out;
}

// "./a/b/" -> "a/b". Refuses what could not be a name in a directory.
Result<std::string> CleanPath(std::string_view path) {
  std::string out;
  for (size_t start = 0; start < path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string_view name = path.substr(start, end - start);
    start = end + 1;
    if (name.empty() || name == ".") continue;
    if (name == ".." || name.find('\0') != std::string_view::npos) return Damaged("a path with an impossible name");
    if (!out.empty()) out += '/';
    out += name;
  }
  if (out.size() > kMaxPathBytes) return Damaged("a path is too long");
  return out;
}

}  // namespace

// What the headers before a member's own say of it.
struct TarStream::Extensions {
  std::optional<std::string> path, link;
  std::optional<uint64_t> size, uid, gid, major, minor;
  std::optional<Entry> time;  // its mtime
  XattrSet xattrs;
  // GNU's sparse members in pax: a map here (0.0 and 0.1), or before the data (1.0).
  std::optional<std::string> sparse_name;
  std::optional<uint64_t> sparse_size, sparse_major, sparse_offset;
  std::vector<TarPiece> sparse_pieces;
  bool sparse = false, text_acl = false;

  Status Parse(std::string_view records) {
    while (!records.empty()) {
      const size_t space = records.find(' ');
      size_t length;
      if (space == std::string_view::npos || !ParseDecimal(records.substr(0, space), length) ||
          length > records.size() || length < space + 3 || records[length - 1] != '\n') {
        return Damaged("an extended header");
      }
      const std::string_view record = records.substr(space + 1, length - space - 2);
      const size_t equals = record.find('=');
      if (equals == std::string_view::npos) return Damaged("an extended header without value");
      TRY(Set(record.substr(0, equals), record.substr(equals + 1)));
      records.remove_prefix(length);
    }
    return {};
  }

  Status Set(std::string_view key, std::string_view value) {
    const auto number = [&](std::optional<uint64_t>& out) -> Status {
      if (!ParseDecimal(value, out.emplace())) return Damaged("a number in an extended header");
      return {};
    };
    if (key == "path") path = value;
    if (key == "linkpath") link = value;
    if (key == "size") return number(size);
    if (key == "uid") return number(uid);
    if (key == "gid") return number(gid);
    if (key == "SCHILY.devmajor") return number(major);
    if (key == "SCHILY.devminor") return number(minor);
    if (key == "mtime" && !ParseTime(value, time.emplace())) return Damaged("a time in an extended header");
    if (key.starts_with("GNU.sparse.")) return SetSparse(key.substr(11), value, number);
    if (key.starts_with("SCHILY.acl.") && !value.empty()) text_acl = true;
    // The label as the kernel keeps it, with its NUL.
    if (key == "RHT.security.selinux" && !value.empty()) xattrs["security.selinux"] = std::string(value) + '\0';
    if (key.starts_with(kXattrPrefix)) xattrs[UnescapeXattrName(key.substr(kXattrPrefix.size()))] = value;
    return {};
  }

  template <typename Number>
  Status SetSparse(std::string_view key, std::string_view value, const Number& number) {
    sparse = true;
    if (key == "name") sparse_name = value;
    if (key == "size" || key == "realsize") return number(sparse_size);
    if (key == "major") return number(sparse_major);
    if (key == "offset") return number(sparse_offset);
    if (key == "numbytes") {
      std::optional<uint64_t> length;
      TRY(number(length));
      if (!sparse_offset) return Damaged("a sparse member's map");
      return AddPiece(*sparse_offset, *length);
    }
    if (key != "map") return {};
    std::vector<uint64_t> numbers;
    for (size_t start = 0; start <= value.size();) {
      const size_t end = std::min(value.find(',', start), value.size());
      if (!ParseDecimal(value.substr(start, end - start), numbers.emplace_back())) {
        return Damaged("a sparse member's map");
      }
      start = end + 1;
    }
    if (numbers.size() % 2 != 0) return Damaged("a sparse member's map");
    for (size_t i = 0; i < numbers.size(); i += 2) TRY(AddPiece(numbers[i], numbers[i + 1]));
    return {};
  }
  Status AddPiece(uint64_t offset, uint64_t length) {
    if (sparse_pieces.size() >= kMaxSparsePieces) return Damaged("a sparse member in too many pieces");
    sparse_pieces.push_back({offset, length});
    return {};
  }
};

// The pieces in the header, then those in the blocks behind it.
Status TarStream::ReadOldSparse(std::string_view header, TarMember& member) {
  Header block;
  std::copy(header.begin(), header.end(), block.begin());
  const auto take = [&](size_t offset, size_t count) -> Status {
    for (size_t i = 0; i < count; ++i) {
      const size_t at = offset + i * 2 * kOldNumberBytes;
      if (block[at] == 0) break;
      ASSIGN_OR_RETURN(const int64_t start, Number(block, {at, kOldNumberBytes}));
      ASSIGN_OR_RETURN(const int64_t length, Number(block, {at + kOldNumberBytes, kOldNumberBytes}));
      if (start < 0 || length < 0 || member.pieces.size() >= kMaxSparsePieces) return Damaged("a sparse member's map");
      member.pieces.push_back({static_cast<uint64_t>(start), static_cast<uint64_t>(length)});
    }
    return {};
  };
  ASSIGN_OR_RETURN(const int64_t size, Number(block, kOldRealSize));
  if (size < 0) return Damaged("a negative size");
  member.size = static_cast<uint64_t>(size);
  TRY(take(kOldSparseOffset, kOldSparseCount));
  bool more = block[kOldExtendedOffset] != 0;
  while (more) {
    TRY(ReadExactly(block.data(), block.size()));
    TRY(take(0, kBlockSparseCount));
    more = block[kBlockExtendedOffset] != 0;
  }
  return {};
}

// Format 1.0: before the data, in blocks of its own, decimal numbers each with a newline: how many, then offset and length.
Status TarStream::ReadSparseMap(TarMember& member) {
  Header block;
  size_t at = block.size();
  const auto number = [&]() -> Result<uint64_t> {
    std::string digits;
    for (;;) {
      if (at == block.size()) {
        if (data_left_ < block.size()) return Damaged("a sparse member's map");
        TRY(ReadExactly(block.data(), block.size()));
        data_left_ -= block.size();
        at = 0;
      }
      const char c = block[at++];
      if (c == '\n') break;
      digits += c;
      if (digits.size() > 20) return Damaged("a sparse member's map");
    }
    uint64_t value;
    if (!ParseDecimal(digits, value)) return Damaged("a sparse member's map");
    return value;
  };
  ASSIGN_OR_RETURN(const uint64_t count, number());
  if (count > kMaxSparsePieces) return Damaged("a sparse member in too many pieces");
  for (uint64_t i = 0; i < count; ++i) {
    TarPiece piece;
    ASSIGN_OR_RETURN(piece.offset, number());
    ASSIGN_OR_RETURN(piece.length, number());
    member.pieces.push_back(piece);
  }
  return {};
}

Status TarStream::CheckSparse(const TarMember& member) const {
  uint64_t end = 0, sum = 0;
  for (const TarPiece& piece : member.pieces) {
    if (piece.offset < end || piece.offset > member.size || piece.length > member.size - piece.offset) {
      return Damaged("a sparse member's map");
    }
    end = piece.offset + piece.length;
    sum += piece.length;
  }
  if (sum != data_left_) return Damaged("a sparse member's map");
  return {};
}

Status TarStream::ReadExactly(char* out, size_t size) {
  while (size > 0) {
    ASSIGN_OR_RETURN(const size_t n, source_(out, size));
    if (n == 0) return Damaged("it ends too early");
    out += n;
    size -= n;
  }
  return {};
}

Result<std::string> TarStream::ReadWhole(uint64_t size) {
  if (size > kMaxExtensionBytes) return Damaged("a header is too long");
  std::string bytes(static_cast<size_t>((size + kBlockBytes - 1) / kBlockBytes * kBlockBytes), '\0');
  TRY(ReadExactly(bytes.data(), bytes.size()));
  bytes.resize(static_cast<size_t>(size));
  return bytes;
}

Result<std::string> TarStream::ReadData(size_t limit) {
  std::string bytes(static_cast<size_t>(std::min<uint64_t>(limit, data_left_)), '\0');
  TRY(ReadExactly(bytes.data(), bytes.size()));
  data_left_ -= bytes.size();
  return bytes;
}

Status TarStream::SkipData() {
  if (skip_) {
    TRY(skip_(data_left_ + padding_));
    data_left_ = padding_ = 0;
    return {};
  }
  while (data_left_ > 0) {
    if (auto piece = ReadData(kSkipBytes); !piece) return tl::make_unexpected(std::move(piece).error());
  }
  std::array<char, kBlockBytes> padding;
  while (padding_ > 0) {
    ASSIGN_OR_RETURN(const size_t n, source_(padding.data(), static_cast<size_t>(padding_)));
    if (n == 0 && !end_needed_) break;
    if (n == 0) return Damaged("it ends too early");
    padding_ -= n;
  }
  padding_ = 0;
  return {};
}

Result<std::optional<TarMember>> TarStream::Next() {
  TRY(SkipData());
  Extensions extensions;
  Header header;
  char type;
  int64_t size;
  uint64_t extension_bytes = 0;  // of all headers before the member's own
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n, source_(header.data(), header.size()));
    if (n == 0 && !end_needed_) return std::nullopt;
    if (n == 0) return Damaged("it ends too early");
    TRY(ReadExactly(header.data() + n, header.size() - n));
    if (std::all_of(header.begin(), header.end(), [](char c) { return c == 0; })) return std::nullopt;
    if (std::memcmp(header.data() + kMagicOffset, "ustar", 5) != 0 || !ChecksumHolds(header)) {
      return Damaged("a header does not check");
    }
    type = header[kTypeOffset];
    ASSIGN_OR_RETURN(size, Number(header, kSize));
    if (size < 0) return Damaged("a negative size");
    if (type == 'V') continue;  // a volume's label
    if (type != 'x' && type != 'g' && type != 'L' && type != 'K') break;
    if (type != 'g') extension_bytes += std::min(static_cast<uint64_t>(size), 2 * kMaxExtensionBytes);
    if (extension_bytes > kMaxExtensionBytes) return Damaged("a member's headers are too long");
    ASSIGN_OR_RETURN(const std::string bytes, ReadWhole(static_cast<uint64_t>(size)));
    if (type == 'x') TRY(extensions.Parse(bytes));
    if (type == 'L') extensions.path = bytes.c_str();  // ends with NUL
    if (type == 'K') extensions.link = bytes.c_str();
  }

  TarMember member;
  std::string path = extensions.sparse_name ? *extensions.sparse_name : extensions.path.value_or(Text(header, kName));
  // GNU's own format ("ustar" and two spaces) has other things where POSIX has the prefix.
  const bool posix = header[kMagicOffset + 5] == 0;
  if (posix && !extensions.sparse_name && !extensions.path && !Text(header, kPrefix).empty()) {
    path = Text(header, kPrefix) + "/" + path;
  }
  ASSIGN_OR_RETURN(member.path, CleanPath(path));
  member.target = extensions.link.value_or(Text(header, kLinkName));
  Entry& entry = member.entry;
  switch (type) {
    case '0':
    case '7':
    case '\0':
    case 'S':
      member.size = extensions.size.value_or(static_cast<uint64_t>(size));
      break;
    case '1': {
      member.hard_link = true;
      ASSIGN_OR_RETURN(member.target, CleanPath(member.target));
      break;
    }
    case '2':
      entry.type = FileType::kSymlink;
      break;
    case '3':
      entry.type = FileType::kCharDevice;
      break;
    case '4':
      entry.type = FileType::kBlockDevice;
      break;
    case '5':
    case 'D':  // GNU's incremental archives: a list of names follows, which is skipped
      entry.type = FileType::kDirectory;
      if (type == 'D') member.size = extensions.size.value_or(static_cast<uint64_t>(size));
      break;
    case '6':
      entry.type = FileType::kFifo;
      break;
    default:
      return Damaged(fmt::format("/{} is of unknown type {:#x}", member.path, static_cast<uint8_t>(type)));
  }
  if (member.size > kMaxFileSize) return Damaged("a size is too large");
  data_left_ = member.size;
  padding_ = (kBlockBytes - member.size % kBlockBytes) % kBlockBytes;
  if (entry.type == FileType::kDirectory) member.size = 0;
  if (member.hard_link) return member;
  if (type == 'S') {
    member.sparse = true;
    TRY(ReadOldSparse({header.data(), header.size()}, member));
  } else if (extensions.sparse && entry.type == FileType::kRegular) {
    member.sparse = true;
    if (!extensions.sparse_size) return Damaged("a sparse member without its size");
    member.size = *extensions.sparse_size;
    member.pieces = std::move(extensions.sparse_pieces);
    if (extensions.sparse_major.value_or(0) > 1) return Damaged("a sparse member of unknown form");
    if (extensions.sparse_major.value_or(0) == 1) TRY(ReadSparseMap(member));
  }
  if (member.size > kMaxFileSize) return Damaged("a size is too large");
  if (member.sparse) TRY(CheckSparse(member));
  member.text_acl = extensions.text_acl;

  ASSIGN_OR_RETURN(const int64_t mode, Number(header, kMode));
  ASSIGN_OR_RETURN(const int64_t uid, Number(header, kUid));
  ASSIGN_OR_RETURN(const int64_t gid, Number(header, kGid));
  entry.mode = static_cast<uint16_t>(mode & 07777);
  entry.uid = static_cast<uint32_t>(extensions.uid.value_or(static_cast<uint64_t>(uid)));
  entry.gid = static_cast<uint32_t>(extensions.gid.value_or(static_cast<uint64_t>(gid)));
  if (extensions.time) {
    entry.mtime_sec = extensions.time->mtime_sec;
    entry.mtime_nsec = extensions.time->mtime_nsec;
  } else {
    ASSIGN_OR_RETURN(entry.mtime_sec, Number(header, kMtime));
  }
  if (entry.type == FileType::kCharDevice || entry.type == FileType::kBlockDevice) {
    ASSIGN_OR_RETURN(const int64_t major, Number(header, kMajor));
    ASSIGN_OR_RETURN(const int64_t minor, Number(header, kMinor));
    entry.rdev_major = static_cast<uint32_t>(extensions.major.value_or(static_cast<uint64_t>(major)));
    entry.rdev_minor = static_cast<uint32_t>(extensions.minor.value_or(static_cast<uint64_t>(minor)));
  }
  member.xattrs = std::move(extensions.xattrs);
  return member;
}

}  // namespace mirage
