// 256-bit ids and the one hash of a library (SHA-256 through OpenSSL's EVP).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace mirage {

struct ObjectId {
  static constexpr size_t kSize = 32;
  std::array<uint8_t, kSize> bytes{};

  auto operator<=>(const ObjectId&) const = default;
  bool IsZero() const { return *this == ObjectId{}; }
  std::string Hex() const;  // 64 lower-case digits, as `sha256sum` prints
  std::string_view view() const { return {reinterpret_cast<const char*>(bytes.data()), kSize}; }

  static std::optional<ObjectId> FromHex(std::string_view hex);     // exactly 64 digits
  static std::optional<ObjectId> FromBytes(std::string_view raw);   // exactly 32 bytes
};

struct ObjectIdHash {
  size_t operator()(const ObjectId& id) const {
    size_t h;
    std::memcpy(&h, id.bytes.data(), sizeof h);  // already uniform
    return h;
  }
};

// Streaming SHA-256. Not thread-safe; reusable after Finish.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Update(std::string_view bytes);
  ObjectId Finish();  // and starts anew

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

ObjectId HashBytes(std::string_view bytes);  // SHA-256 of the bytes; thread-safe
extern const ObjectId kEmptyContentId;       // SHA-256 of no bytes

}  // namespace mirage
