// msb-archive-member-blake3-v1: the hash of a member's name, sizes and stored bytes, by which a
// reader sees that it arrived as it was sent. docs/formats.md gives the definition.

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
  // What Member and its kind's name say; nothing is kept of it.
  MemberHasher(std::string_view kind, std::string_view path, std::uint64_t encoded_size,
               std::uint64_t apparent_size, std::span<const disk::Extent> listed_ranges);

  // The next of the bytes that the entry carries.
  void Update(std::span<const std::byte> bytes);

  // "blake3:…"; call once, last.
  std::string Finish();

 private:
  base::Blake3 hash_;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_MEMBER_HASH_H_
