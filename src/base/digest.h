// SPDX-License-Identifier: Apache-2.0
//
// Computes SHA-256 hashes, and handles digests and their texts, such as "sha256:…".

#ifndef MSB_SRC_BASE_DIGEST_H_
#define MSB_SRC_BASE_DIGEST_H_

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace msb::base {

// A Sha256 computes the hash of the bytes that are added to it.
class Sha256 {
 public:
  Sha256();
  void Update(const void* data, std::size_t size);
  // Returns the digest, "sha256:…". Must be called only once, after all updates.
  std::string Finish();

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

// Returns the digest of bytes, "sha256:…".
std::string Sha256Digest(std::string_view bytes);

// Works like Sha256Digest, but returns only the hex digits.
std::string Sha256Hex(std::string_view bytes);

// Returns the bytes as lower-case hex digits.
std::string Hex(std::span<const std::uint8_t> bytes);

// Returns true if text consists of this many lower-case hex digits.
bool IsHex(std::string_view text, std::size_t digits);

// A Digest is a hash of 256 bits with the name of its algorithm. Its text is ALGORITHM:HEX, where
// HEX has 64 lower-case hex digits.
class Digest {
 public:
  static constexpr std::size_t kHexDigits = 64;

  // Returns nullopt if text, which may come from outside, is not the text of a digest.
  static std::optional<Digest> Parse(std::string_view text);
  // Works like Parse for a text that has been checked. Throws kInternal if it is not a digest.
  static Digest Require(std::string_view text);

  const std::string& algorithm() const { return algorithm_; }
  const std::string& hex() const { return hex_; }
  std::string ToString() const { return algorithm_ + ":" + hex_; }

  bool operator==(const Digest&) const = default;

 private:
  Digest(std::string_view algorithm, std::string_view hex) : algorithm_(algorithm), hex_(hex) {}

  std::string algorithm_;
  std::string hex_;
};

// Returns true if text is that of a digest by this algorithm.
bool IsDigest(std::string_view text, std::string_view algorithm);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_DIGEST_H_
