#include "src/base/digest.h"

#include <openssl/crypto.h>

#include <algorithm>

#include "src/base/descriptor.h"
#include "src/base/fork.h"
#include "src/base/throw.h"

namespace msb::base {

Sha256::Sha256() {
  const ForkSafeSection section;    // OpenSSL locks mutexes of the whole process,
  const StandardStreamGuard guard;  // and reads its configuration file.
  // If this call is the one that initialises OpenSSL, OpenSSL stays usable until the process has
  // ended, so destructors of static objects can use it.
  if (OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr) == 1) context_.reset(EVP_MD_CTX_new());
  if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) {
    Throw(ErrorKind::kInternal, "OpenSSL cannot initialize SHA-256");
  }
}

void Sha256::Update(const void* data, std::size_t size) {
  if (EVP_DigestUpdate(context_.get(), data, size) != 1) {
    Throw(ErrorKind::kInternal, "OpenSSL cannot compute a SHA-256");
  }
}

std::string Sha256::Finish() {
  std::array<std::uint8_t, 32> hash{};
  if (EVP_DigestFinal_ex(context_.get(), hash.data(), nullptr) != 1) {
    Throw(ErrorKind::kInternal, "OpenSSL cannot compute a SHA-256");
  }
  return "sha256:" + Hex(hash);
}

std::string Sha256Digest(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes.data(), bytes.size());
  return hash.Finish();
}

std::string Hex(std::span<const std::uint8_t> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

bool IsDigest(std::string_view text, std::string_view algorithm) {
  if (!text.starts_with(algorithm)) return false;
  text.remove_prefix(algorithm.size());
  if (text.size() != 65 || text[0] != ':') return false;
  return std::all_of(text.begin() + 1, text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace msb::base
