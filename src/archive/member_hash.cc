// SPDX-License-Identifier: Apache-2.0

#include "src/archive/member_hash.h"

#include "src/base/digest.h"

namespace msb::archive {
namespace {

void AddWithLength(base::Blake3& hash, std::string_view text) {
  hash.AddLittleEndian(std::uint64_t{text.size()}).Add(text);
}

}  // namespace

MemberHasher::MemberHasher(std::string_view kind, std::string_view path, std::uint64_t encoded_size,
                           std::uint64_t apparent_size,
                           std::span<const disk::Extent> listed_ranges) {
  hash_.Add(kMemberHash).AddLittleEndian(std::uint8_t{0});
  AddWithLength(hash_, kind);
  AddWithLength(hash_, path);
  hash_.AddLittleEndian(encoded_size)
      .AddLittleEndian(apparent_size)
      .AddLittleEndian(std::uint64_t{listed_ranges.size()});
  for (const disk::Extent& range : listed_ranges) {
    hash_.AddLittleEndian(range.offset).AddLittleEndian(range.length);
  }
}

void MemberHasher::Update(std::span<const std::byte> bytes) {
  hash_.Add(bytes.data(), bytes.size());
}

std::string MemberHasher::Finish() { return "blake3:" + base::Hex(hash_.Finish()); }

}  // namespace msb::archive
