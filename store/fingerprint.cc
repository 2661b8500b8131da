#include "store/fingerprint.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <cstdio>
#include <cstdlib>

namespace mirage {
namespace {

// As with SHA-256: what fails here is memory, or the algorithm is missing.
void Require(bool condition) {
  if (condition) return;
  std::fputs("mirage: GMAC or random bytes are not available from OpenSSL\n", stderr);
  std::abort();
}

EVP_MAC* Algorithm() {
  static EVP_MAC* const algorithm = EVP_MAC_fetch(nullptr, "GMAC", nullptr);
  Require(algorithm != nullptr);
  return algorithm;
}

}  // namespace

FingerprintKey FingerprintKey::Random() {
  FingerprintKey key;
  Require(RAND_bytes(key.bytes.data(), static_cast<int>(key.bytes.size())) == 1);
  return key;
}

struct Fingerprinter::Context {
  ~Context() { EVP_MAC_CTX_free(mac); }
  // With no key the one before stays.
  void Start(const FingerprintKey* key) {
    char cipher[] = "AES-128-GCM";
    unsigned char nonce[12] = {};
    const OSSL_PARAM nonce_alone[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_IV, nonce, sizeof nonce),
                                      OSSL_PARAM_construct_end()};
    const OSSL_PARAM all[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_CIPHER, cipher, 0), nonce_alone[0],
                              OSSL_PARAM_construct_end()};
    Require(key != nullptr ? EVP_MAC_init(mac, key->bytes.data(), key->bytes.size(), all) == 1
                           : EVP_MAC_init(mac, nullptr, 0, nonce_alone) == 1);
  }
  EVP_MAC_CTX* const mac = EVP_MAC_CTX_new(Algorithm());
};

Fingerprinter::Fingerprinter(const FingerprintKey& key) : context_(std::make_unique<Context>()) {
  Require(context_->mac != nullptr);
  context_->Start(&key);
}
Fingerprinter::~Fingerprinter() = default;

void Fingerprinter::Update(std::string_view bytes) {
  Require(EVP_MAC_update(context_->mac, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()) == 1);
}

Fingerprint Fingerprinter::Finish() {
  Fingerprint fingerprint;
  size_t length = 0;
  Require(EVP_MAC_final(context_->mac, fingerprint.bytes.data(), &length, fingerprint.bytes.size()) == 1 &&
          length == fingerprint.bytes.size());
  context_->Start(nullptr);
  return fingerprint;
}

Fingerprint Fingerprinter::Of(std::string_view bytes) {
  Update(bytes);
  return Finish();
}

}  // namespace mirage
