// SPDX-License-Identifier: Apache-2.0
//
// A ContentSha256 computes the SHA-256 of the logical content of a file while its data passes
// through a scan.

#ifndef MSB_SRC_DISK_CONTENT_SHA256_H_
#define MSB_SRC_DISK_CONTENT_SHA256_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "src/base/digest.h"
#include "src/disk/scan.h"

namespace msb::disk {

// A SHA-256 cannot be computed in parts, so holes are hashed as the zeros that they read as.
class ContentSha256 : public RegionConsumer {
 public:
  // size is the size of the file in bytes. ctx must outlive the object.
  ContentSha256(const Context& ctx, std::uint64_t size) : ctx_(ctx), size_(size) {}

  // Hashes bytes that precede the content. Call before the first region.
  void AddPreamble(std::string_view bytes) { hash_.Update(bytes.data(), bytes.size()); }
  void Commit(const Region& region) override;
  // Returns the digest, "sha256:…". Call once, after the last region.
  std::string Finish();

 private:
  void AddZerosUpTo(std::uint64_t end);

  const Context& ctx_;
  const std::uint64_t size_;
  std::uint64_t position_ = 0;
  base::Sha256 hash_;
};

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_CONTENT_SHA256_H_
