// The file FORMAT: what a library's bytes mean (FORMAT.md, "FORMAT"). Text, because it is the first thing looked at when
// a library is in trouble; checksummed, because all else is read by it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "store/chunker.h"
#include "store/object_id.h"
#include "store/result.h"

namespace mirage {

constexpr uint32_t kFormatVersion = 1;

// What FORMAT says; written once.
struct Format {
  uint32_t version = kFormatVersion;
  uint64_t compatible = 0, incompatible = 0;  // feature bits
  std::string uuid;                           // 16 bytes
  std::string hash = "sha256";
  ChunkingParameters chunking;
};

std::string EncodeFormat(const Format& format);
// EIO: damaged. EPROTONOSUPPORT: a newer version, or an incompatible feature that this program does not know. `path` is
// for messages.
Result<Format> DecodeFormat(const std::string& text, std::string_view path);
// The text as it was before one byte of it changed, where the checksum proves which one. Nothing: no such text.
std::optional<std::string> MendFormat(const std::string& text, const std::string& path);

}  // namespace mirage
