// Little-endian pieces of our encodings: append to a string, take from a view. A Decoder never reads past its bytes;
// the first take that would makes it fail for good, so that a caller may check once at the end.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "store/object_id.h"

namespace mirage {

static_assert(std::endian::native == std::endian::little, "the encodings are copied as they lie in memory");

template <std::integral T>
void Put(std::string* out, std::type_identity_t<T> value) {
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof raw);
  out->append(raw, sizeof raw);
}
inline void PutId(std::string* out, const ObjectId& id) { out->append(id.view()); }

// The caller knows that the bytes are there.
template <std::integral T>
T LoadAt(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : bytes_(bytes) {}

  template <std::integral T>
  T Take() {
    const std::string_view raw = Bytes(sizeof(T));
    return ok_ ? LoadAt<T>(raw, 0) : T{};
  }
  ObjectId Id() { return {Array<ObjectId::kSize>()}; }
  template <size_t n>
  std::array<uint8_t, n> Array() {
    std::array<uint8_t, n> bytes{};
    const std::string_view raw = Bytes(n);
    if (ok_) std::memcpy(bytes.data(), raw.data(), n);
    return bytes;
  }
  std::string_view Bytes(size_t count) {
    if (count > bytes_.size()) ok_ = false;
    if (!ok_) return {};
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  size_t left() const { return bytes_.size(); }
  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && bytes_.empty(); }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace mirage
