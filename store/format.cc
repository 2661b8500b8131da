#include "store/format.h"

#include <charconv>
#include <map>

namespace mirage {
namespace {

constexpr std::string_view kFormatTitle = "mirage library\n";

}  // namespace

std::string EncodeFormat(const Format& format) {
  std::string hex;
  for (const char c : format.uuid) hex += fmt::format("{:02x}", static_cast<uint8_t>(c));
  std::string text = fmt::format(
      "{}version: {}\ncompatible: {}\nincompatible: {}\nuuid: {}\nhash: {}\nchunking: fastcdc {} {} {}\n", kFormatTitle,
      format.version, format.compatible, format.incompatible, hex, format.hash, format.chunking.min_bytes,
      format.chunking.average_bytes, format.chunking.max_bytes);
  return text + "checksum: " + HashBytes(text).Hex() + "\n";
}

Result<Format> DecodeFormat(const std::string& text, std::string_view path) {
  if (!text.starts_with(kFormatTitle)) return Fail(EIO, "{}: not a library's FORMAT file", path);
  const size_t checksum_at = text.rfind("checksum: ");
  if (checksum_at == std::string::npos ||
      text.substr(checksum_at) != "checksum: " + HashBytes(text.substr(0, checksum_at)).Hex() + "\n") {
    return Fail(EIO, "{}: checksum does not match: the file is damaged; restore it from a copy", path);
  }
  Format format;
  std::map<std::string, std::string> fields;
  size_t at = kFormatTitle.size();
  while (at < checksum_at) {
    const size_t end = text.find('\n', at), colon = text.find(": ", at);
    if (colon == std::string::npos || colon > end) return Fail(EIO, "{}: a line without a name", path);
    fields[text.substr(at, colon - at)] = text.substr(colon + 2, end - colon - 2);
    at = end + 1;
  }
  const auto number = [&](const char* name, auto* out) {
    const std::string& value = fields[name];
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), *out);
    return error == std::errc() && end == value.data() + value.size();
  };
  if (!number("version", &format.version)) return Fail(EIO, "{}: no version", path);
  if (format.version > kFormatVersion) {
    return Fail(EPROTONOSUPPORT, "{}: library format {} is newer than this program's {}; use a newer mirage", path,
                format.version, kFormatVersion);
  }
  if (!number("compatible", &format.compatible) || !number("incompatible", &format.incompatible)) {
    return Fail(EIO, "{}: no feature bits", path);
  }
  if (format.incompatible != 0) {
    return Fail(EPROTONOSUPPORT, "{}: the library uses features {:#x} that this program does not know; use a newer mirage",
                path, format.incompatible);
  }
  if (fields["hash"] != "sha256") return Fail(EPROTONOSUPPORT, "{}: unknown hash {}", path, fields["hash"]);
  const auto uuid = ObjectId::FromHex(fields["uuid"] + std::string(32, '0'));
  if (!uuid || fields["uuid"].size() != 32) return Fail(EIO, "{}: no UUID", path);
  format.uuid = std::string(uuid->view().substr(0, 16));
  ChunkingParameters& c = format.chunking;
  if (std::sscanf(fields["chunking"].c_str(), "fastcdc %u %u %u", &c.min_bytes, &c.average_bytes, &c.max_bytes) != 3 ||
      c.min_bytes < 64 || c.min_bytes > c.average_bytes || c.average_bytes > c.max_bytes || c.max_bytes > (1U << 20) ||
      (c.average_bytes & (c.average_bytes - 1)) != 0) {
    return Fail(EPROTONOSUPPORT, "{}: unknown chunking \"{}\"", path, fields["chunking"]);
  }
  return format;
}

std::optional<std::string> MendFormat(const std::string& text, const std::string& path) {
  const auto reads = [&](const std::string& tried) {
    const auto format = DecodeFormat(tried, path);
    return format || format.error().code == EPROTONOSUPPORT;
  };
  std::string tried = text;
  for (const bool one_bit : {true, false}) {
    for (size_t i = 0; i < tried.size() && tried.size() < 1024; ++i) {
      for (unsigned step = 0; step < (one_bit ? 8U : 256U); ++step) {
        tried[i] = one_bit ? static_cast<char>(text[i] ^ (1 << step)) : static_cast<char>(step);
        if (reads(tried)) return tried;
      }
      tried[i] = text[i];
    }
  }
  return std::nullopt;
}

}  // namespace mirage
