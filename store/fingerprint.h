// 128-bit keyed fingerprints of file bytes, by which bytes that are read again are known as those of a version without
// their SHA-256, at an eighth of its cost. They stand beside objects, never in place of an object's id.
//
// GMAC (NIST SP 800-38D) with AES-128, one random key and one constant nonce: a universal hash in the sense of Carter and
// Wegman. Of two different contents of n bytes, chosen by who does not know the key, the fingerprints agree with a
// probability of at most (n / 16 + 2) / 2^128: 2^-92 at 1 TiB. That holds as long as nobody but the library's owner sees
// key or fingerprints: who does can make contents that agree.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

namespace mirage {

struct Fingerprint {
  std::array<uint8_t, 16> bytes{};
  bool operator==(const Fingerprint&) const = default;
  bool IsZero() const { return *this == Fingerprint{}; }  // stands for: not known
  std::string_view view() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
};

struct FingerprintKey {
  std::array<uint8_t, 16> bytes{};
  bool operator==(const FingerprintKey&) const = default;
  static FingerprintKey Random();
  std::string_view view() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
};

// Of bytes that come in pieces. Not thread-safe; reusable after Finish.
class Fingerprinter {
 public:
  explicit Fingerprinter(const FingerprintKey& key);
  ~Fingerprinter();
  Fingerprinter(const Fingerprinter&) = delete;
  Fingerprinter& operator=(const Fingerprinter&) = delete;
  void Update(std::string_view bytes);
  Fingerprint Finish();  // and starts anew
  Fingerprint Of(std::string_view bytes);  // between Finish and Update

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace mirage
