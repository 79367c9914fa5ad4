// Computes SHA-256 hashes, and handles digests in their textual form: "sha256:" and 64 lower-case
// hex digits.

#ifndef MSB_SRC_BASE_DIGEST_H_
#define MSB_SRC_BASE_DIGEST_H_

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
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

// Returns the bytes as lower-case hex digits.
std::string Hex(std::span<const std::uint8_t> bytes);

// Returns true if text is algorithm + ":" + 64 lower-case hex digits.
bool IsDigest(std::string_view text, std::string_view algorithm);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_DIGEST_H_
