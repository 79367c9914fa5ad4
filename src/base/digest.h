// SHA-256, and the textual form of digests: "sha256:" and 64 lower-case hex digits.

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

class Sha256 {
 public:
  Sha256();
  void Update(const void* data, std::size_t size);
  // "sha256:…"; call once, last.
  std::string Finish();

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

// "sha256:…" of these bytes.
std::string Sha256Digest(std::string_view bytes);

// Lower-case hex digits.
std::string Hex(std::span<const std::uint8_t> bytes);

// True for algorithm + ":" + 64 lower-case hex digits.
bool IsDigest(std::string_view text, std::string_view algorithm);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_DIGEST_H_
