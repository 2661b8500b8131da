#include "tools/output.h"

#include <cstdio>
#include <ctime>

namespace mirage {
namespace {

// Length of the clean UTF-8 sequence at `at`, 0 when there is none.
size_t CleanSequence(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(at);
  if (first < 0x80) return first < 0x20 || first == 0x7f ? 0 : 1;
  const size_t length = first >= 0xc2 && first <= 0xdf   ? 2
                        : (first & 0xf0) == 0xe0         ? 3
                        : first >= 0xf0 && first <= 0xf4 ? 4
                                                         : 0;
  if (length == 0 || at + length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return 0;
  }
  const uint8_t second = byte(at + 1);
  if (first == 0xc2 && second < 0xa0) return 0;  // C1 controls: terminals obey them
  if ((first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90)) return 0;    // overlong
  if ((first == 0xed && second >= 0xa0) || (first == 0xf4 && second >= 0x90)) return 0;  // surrogates, beyond Unicode
  return length;
}

}  // namespace

bool IsCleanUtf8(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = CleanSequence(bytes, i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::string EscapeBytes(std::string_view bytes) {
  if (IsCleanUtf8(bytes)) return std::string(bytes);
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = bytes[i] == '\\' ? 0 : CleanSequence(bytes, i);
    if (length == 0) {
      out += fmt::format("\\x{:02x}", static_cast<uint8_t>(bytes[i++]));
    } else {
      out += bytes.substr(i, length);
      i += length;
    }
  }
  return out;
}

std::string EncodeBase64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k)
      group = group << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) {
      out += k <= std::min<size_t>(3, bytes.size() - i) ? kDigits[group >> (18 - 6 * k) & 63] : '=';
    }
  }
  return out;
}

void AddText(Json& object, const std::string& key, std::string_view bytes) {
  // Control characters are legal in JSON (escaped by its writer): only what is not UTF-8 needs the second member.
  std::string printable(bytes);
  for (char& c : printable) {
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  if (IsCleanUtf8(printable)) {
    object[key] = std::string(bytes);
  } else {
    object[key] = EscapeBytes(bytes);
    object[key + "_base64"] = EncodeBase64(bytes);
  }
}

std::string FormatTime(int64_t seconds, uint32_t nanoseconds) {
  const time_t time = seconds;
  struct tm parts {};
  if (gmtime_r(&time, &parts) == nullptr || parts.tm_year < -1900 || parts.tm_year > 8099) {
    return fmt::format("@{}.{:09}", seconds, nanoseconds);  // outside RFC 3339's four-digit years
  }
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, nanoseconds);
}

std::string FormatSize(uint64_t bytes) {
  static constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string FormatMode(FileType type, uint16_t mode) {
  static constexpr char kTypes[] = "?-dlcbps";
  std::string text(10, '-');
  text[0] = kTypes[static_cast<size_t>(type)];
  for (unsigned i = 0; i < 9; ++i) {
    if (mode >> (8 - i) & 1) text[i + 1] = "rwxrwxrwx"[i];
  }
  const auto special = [&](unsigned bit, size_t at, char with_x, char without) {
    if (mode & bit) text[at] = text[at] == 'x' ? with_x : without;
  };
  special(04000, 3, 's', 'S');
  special(02000, 6, 's', 'S');
  special(01000, 9, 't', 'T');
  return text;
}

std::string_view TypeName(FileType type) {
  switch (type) {
    case FileType::kRegular:
      return "regular file";
    case FileType::kDirectory:
      return "directory";
    case FileType::kSymlink:
      return "symbolic link";
    case FileType::kCharDevice:
      return "character device";
    case FileType::kBlockDevice:
      return "block device";
    case FileType::kFifo:
      return "fifo";
    case FileType::kSocket:
      return "socket";
  }
  return "unknown";
}

std::string ShortId(const ObjectId& id) { return id.Hex().substr(0, 12); }

Json EntryJson(std::string_view path, const Entry& entry) {
  Json json;
  AddText(json, "path", path);
  json["type"] = TypeName(entry.type);
  json["mode"] = fmt::format("{:04o}", entry.mode);
  json["uid"] = entry.uid;
  json["gid"] = entry.gid;
  json["mtime"] = FormatTime(entry.mtime_sec, entry.mtime_nsec);
  switch (entry.type) {
    case FileType::kRegular:
      json["size"] = entry.size;
      json["content"] = entry.id.Hex();
      break;
    case FileType::kDirectory:
      json["tree"] = entry.id.Hex();
      break;
    case FileType::kSymlink:
      json["size"] = entry.size;
      if (!entry.target.empty()) AddText(json, "target", entry.target);
      break;
    case FileType::kCharDevice:
    case FileType::kBlockDevice:
      json["major"] = entry.rdev_major;
      json["minor"] = entry.rdev_minor;
      break;
    default:
      break;
  }
  if (!entry.xattrs.IsZero()) json["xattrs_id"] = entry.xattrs.Hex();
  return json;
}

std::string Output::Fit(std::string_view text) const { return terminal_ ? EscapeBytes(text) : std::string(text); }

void Output::Bytes(std::string_view bytes) {
  if (bytes.empty()) return;  // an empty view may have no address, which fwrite does not take
  if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) != bytes.size() && error_ == 0) error_ = errno;
}
void Output::Line(std::string_view text) {
  Bytes(text);
  Bytes("\n");
}
void Output::PathLine(std::string_view prefix, std::string_view path, std::string_view suffix) {
  Bytes(prefix);
  Bytes(terminator_ == '\0' ? std::string(path) : Fit(path));
  Bytes(suffix);
  Bytes({&terminator_, 1});
}
void Output::Object(const Json& object) { Line(object.dump()); }

Status Output::Finish() {
  if (std::fflush(stdout) != 0 && error_ == 0) error_ = errno;
  if (error_ != 0) return FailErrno(error_, "write to standard output");
  return {};
}

}  // namespace mirage
