// Tar archives made by hand.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

namespace mirage::testing {

inline std::string Header(const std::string& name, char type, uint64_t size) {
  std::string h(512, '\0');
  h.replace(0, name.size(), name);
  std::snprintf(h.data() + 100, 8, "%07o", 0644);
  std::snprintf(h.data() + 108, 8, "%07o", 1000);
  std::snprintf(h.data() + 116, 8, "%07o", 1001);
  std::snprintf(h.data() + 124, 12, "%011lo", static_cast<unsigned long>(size));
  std::snprintf(h.data() + 136, 12, "%011o", 7);
  h[156] = type;
  std::memcpy(h.data() + 257, "ustar\00000", 8);
  h.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : h) sum += static_cast<uint8_t>(c);
  std::snprintf(h.data() + 148, 8, "%06o", sum);
  return h;
}
inline std::string Padded(std::string bytes) {
  bytes.resize((bytes.size() + 511) / 512 * 512);
  return bytes;
}
inline std::string Record(const std::string& key, const std::string& value) {
  size_t length = key.size() + value.size() + 3;
  for (size_t digits = 0; digits != std::to_string(length).size();) {
    digits = std::to_string(length).size();
    length = key.size() + value.size() + 3 + digits;
  }
  return std::to_string(length) + " " + key + "=" + value + "\n";
}
inline std::string Extended(const std::string& records) { return Header("x", 'x', records.size()) + Padded(records); }
inline const std::string kEnd(1024, '\0');

}  // namespace mirage::testing
