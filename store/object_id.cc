#include "store/object_id.h"

#include <openssl/evp.h>

#include <cstdio>
#include <cstdlib>

namespace mirage {
namespace {

// SHA-256 cannot fail for want of anything but memory or the algorithm itself; neither can be handled.
void Require(bool condition) {
  if (condition) return;
  std::fputs("mirage: SHA-256 is not available from OpenSSL\n", stderr);
  std::abort();
}

// Fetched once and never freed: looking the algorithm up costs more than hashing a name.
const EVP_MD* Algorithm() {
  static const EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  Require(algorithm != nullptr);
  return algorithm;
}

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using ContextPointer = std::unique_ptr<EVP_MD_CTX, FreeContext>;

ContextPointer NewContext() {
  ContextPointer context(EVP_MD_CTX_new());
  Require(context != nullptr);
  return context;
}
void Start(EVP_MD_CTX* context) { Require(EVP_DigestInit_ex2(context, Algorithm(), nullptr) == 1); }

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

constinit const ObjectId kEmptyContentId{{0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4,
                                          0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
                                          0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55}};

std::string ObjectId::Hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * kSize);
  for (const uint8_t byte : bytes) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

std::optional<ObjectId> ObjectId::FromHex(std::string_view hex) {
  if (hex.size() != 2 * kSize) return std::nullopt;
  ObjectId id;
  for (size_t i = 0; i < kSize; ++i) {
    const int high = HexDigit(hex[2 * i]), low = HexDigit(hex[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    id.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return id;
}

std::optional<ObjectId> ObjectId::FromBytes(std::string_view raw) {
  if (raw.size() != kSize) return std::nullopt;
  ObjectId id;
  std::memcpy(id.bytes.data(), raw.data(), kSize);
  return id;
}

struct Sha256::Context {
  ContextPointer evp = NewContext();
};

Sha256::Sha256() : context_(std::make_unique<Context>()) { Start(context_->evp.get()); }
Sha256::~Sha256() = default;

void Sha256::Update(std::string_view bytes) {
  Require(EVP_DigestUpdate(context_->evp.get(), bytes.data(), bytes.size()) == 1);
}

ObjectId Sha256::Finish() {
  ObjectId id;
  Require(EVP_DigestFinal_ex(context_->evp.get(), id.bytes.data(), nullptr) == 1);
  Start(context_->evp.get());
  return id;
}

ObjectId HashBytes(std::string_view bytes) {
  static thread_local const ContextPointer context = NewContext();
  ObjectId id;
  Start(context.get());
  Require(EVP_DigestUpdate(context.get(), bytes.data(), bytes.size()) == 1);
  Require(EVP_DigestFinal_ex(context.get(), id.bytes.data(), nullptr) == 1);
  return id;
}

}  // namespace mirage
