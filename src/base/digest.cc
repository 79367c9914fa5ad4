// SPDX-License-Identifier: Apache-2.0

#include "src/base/digest.h"

#include <openssl/crypto.h>

#include <utility>

#include "src/base/descriptor.h"
#include "src/base/fork.h"
#include "src/base/text.h"
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

std::string Sha256Hex(std::string_view bytes) { return Digest::Require(Sha256Digest(bytes)).hex(); }

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

bool IsHex(std::string_view text, std::size_t digits) {
  return text.size() == digits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::optional<Digest> Digest::Parse(std::string_view text) {
  if (text.size() <= kHexDigits + 1) return std::nullopt;
  const std::size_t colon = text.size() - kHexDigits - 1;
  const std::string_view algorithm = text.substr(0, colon);
  const std::string_view hex = text.substr(colon + 1);
  if (text[colon] != ':' || algorithm.find(':') != std::string_view::npos ||
      !IsHex(hex, kHexDigits)) {
    return std::nullopt;
  }
  return Digest(algorithm, hex);
}

Digest Digest::Require(std::string_view text) {
  auto digest = Parse(text);
  if (!digest) Throw(ErrorKind::kInternal, "'{}' is not a digest", Quoted(text));
  return *std::move(digest);
}

bool IsDigest(std::string_view text, std::string_view algorithm) {
  const auto digest = Digest::Parse(text);
  return digest && digest->algorithm() == algorithm;
}

}  // namespace msb::base
