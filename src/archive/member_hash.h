// SPDX-License-Identifier: Apache-2.0
//
// Computes msb-archive-member-blake3-v1: the hash of a member's kind, path, sizes, ranges and
// stored bytes, by which a change in transit is detected. docs/formats.md gives the definition.

#ifndef MSB_SRC_ARCHIVE_MEMBER_HASH_H_
#define MSB_SRC_ARCHIVE_MEMBER_HASH_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "src/base/blake3.h"
#include "src/disk/extents.h"

namespace msb::archive {

inline constexpr std::string_view kMemberHash = "msb-archive-member-blake3-v1";

class MemberHasher {
 public:
  // kind is the KindName of the member's kind. The other arguments are the fields of Member with
  // these names; listed_ranges is Member::ranges. They need not outlive the call.
  MemberHasher(std::string_view kind, std::string_view path, std::uint64_t encoded_size,
               std::uint64_t apparent_size, std::span<const disk::Extent> listed_ranges);

  // Adds the next bytes that the entry stores.
  void Update(std::span<const std::byte> bytes);

  // Returns "blake3:…". Call once, after the last byte.
  std::string Finish();

 private:
  base::Blake3 hash_;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_MEMBER_HASH_H_
