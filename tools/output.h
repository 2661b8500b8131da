// What the tools print and how: data to stdout, one line or one JSON object at a time. Paths are bytes; on a terminal
// what is not clean UTF-8 is escaped, in a pipe it passes as it is, in JSON it comes as `<key>_base64` beside `<key>`.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "store/object.h"

namespace mirage {

using Json = nlohmann::ordered_json;

bool IsCleanUtf8(std::string_view bytes);  // valid UTF-8 without control characters
// Clean text as it is; otherwise each bad byte, control byte and backslash as \xNN.
std::string EscapeBytes(std::string_view bytes);
std::string EncodeBase64(std::string_view bytes);
void AddText(Json& object, const std::string& key, std::string_view bytes);

std::string FormatTime(int64_t seconds, uint32_t nanoseconds);  // 2024-01-31T23:59:59.000000001Z
std::string FormatSize(uint64_t bytes);                         // 1.5 GiB
std::string FormatMode(FileType type, uint16_t mode);           // -rwsr-xr-x
std::string_view TypeName(FileType type);                       // "regular file"
std::string ShortId(const ObjectId& id);                        // 12 digits; `@` before it names the version

// Attributes of one entry, as `ls`, `stat` and `diff` give them in JSON. `path` has a leading slash.
Json EntryJson(std::string_view path, const Entry& entry);

class Output {
 public:
  Output(bool nul_terminated, bool terminal) : terminator_(nul_terminated ? '\0' : '\n'), terminal_(terminal) {}
  // Text that holds no path of an image.
  void Line(std::string_view text);
  // A record that ends with a path: prefix, path, suffix, newline (or NUL with -0, and then nothing is escaped).
  void PathLine(std::string_view prefix, std::string_view path, std::string_view suffix = {});
  void Object(const Json& object);
  void Bytes(std::string_view bytes);
  bool terminal() const { return terminal_; }
  // `text` fit for this output: escaped on a terminal.
  std::string Fit(std::string_view text) const;
  // Everything written must have arrived: ENOSPC and the like are errors of the verb.
  Status Finish();

 private:
  char terminator_;
  bool terminal_;
  int error_ = 0;
};

}  // namespace mirage
