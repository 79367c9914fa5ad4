// SPDX-License-Identifier: Apache-2.0

#include "src/archive/entry_stream.h"

#include <algorithm>

#include "src/disk/sparse_write.h"

namespace msb::archive {
namespace {

using disk::Extent;
using disk::kHoleBytes;
using disk::kRegionBytes;

void AddData(std::vector<Extent>& data, std::uint64_t offset, std::uint64_t length) {
  if (!data.empty() && data.back().end() >= offset) {
    data.back().length = offset + length - data.back().offset;
  } else {
    data.push_back({offset, length});
  }
}

}  // namespace

bool EntryStream::Next(std::uint64_t& offset, std::vector<Extent>& data,
                       std::span<std::byte> bytes) {
  while (data.empty()) {
    if (!FetchPiece()) return false;
    offset = piece_.offset / kRegionBytes * kRegionBytes;
    const std::uint64_t end = offset + kRegionBytes;
    while (FetchPiece() && piece_.offset < end) {
      const auto count = static_cast<std::size_t>(
          std::min<std::uint64_t>(piece_.bytes.size(), end - piece_.offset));
      sparse_ ? TakeSparse(count, offset, data, bytes) : TakeDense(count, offset, data, bytes);
    }
  }
  return true;
}

bool EntryStream::FetchPiece() {
  while (piece_.bytes.empty()) {
    const auto piece = reader_.Read();
    if (!piece) return false;
    piece_ = *piece;
    if (hasher_ != nullptr) hasher_->Update(piece_.bytes);
  }
  return true;
}

void EntryStream::TakeSparse(std::size_t count, std::uint64_t region, std::vector<Extent>& data,
                             std::span<std::byte> bytes) {
  std::copy_n(piece_.bytes.begin(), count,
              bytes.begin() + static_cast<std::ptrdiff_t>(piece_.offset - region));
  AddData(data, piece_.offset, count);
  Drop(count);
}

// Pieces end where the decompressed blocks end, so a 4 KiB block of the file may arrive in two
// pieces. Both are copied then, zeros or not, and if only the second one has data, the block counts
// as data from its beginning.
void EntryStream::TakeDense(std::size_t count, std::uint64_t region, std::vector<Extent>& data,
                            std::span<std::byte> bytes) {
  for (std::size_t step = 0; count > 0; count -= step) {
    const std::uint64_t block = piece_.offset / kHoleBytes * kHoleBytes;
    step = static_cast<std::size_t>(
        std::min<std::uint64_t>(count, block + kHoleBytes - piece_.offset));
    const bool zero = disk::IsZero(piece_.bytes.first(step));
    if (!zero || step < kHoleBytes) {
      std::copy_n(piece_.bytes.begin(), step,
                  bytes.begin() + static_cast<std::ptrdiff_t>(piece_.offset - region));
    }
    const bool begun = !data.empty() && data.back().end() > block;
    if (!zero || begun) AddData(data, block, piece_.offset + step - block);
    Drop(step);
  }
}

void EntryStream::Drop(std::size_t count) {
  piece_.offset += count;
  piece_.bytes = piece_.bytes.subspan(count);
}

}  // namespace msb::archive
