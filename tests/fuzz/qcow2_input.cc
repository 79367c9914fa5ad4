// SPDX-License-Identifier: Apache-2.0

#include "tests/fuzz/qcow2_input.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "src/base/big_endian.h"

namespace msb::fuzz {
namespace {

constexpr std::uint64_t kHalfBytes = 2048;

}  // namespace

Qcow2Input::Qcow2Input(std::string bytes) : bytes_(std::move(bytes)) {
  const std::uint64_t bits = Number(20, 4);
  if (bits >= 9 && bits <= 21) cluster_bits_ = static_cast<unsigned>(bits);
}

std::uint64_t Qcow2Input::given_bytes() const { return std::min(cluster_bytes(), 2 * kHalfBytes); }

std::uint64_t Qcow2Input::clusters() const {
  return (bytes_.size() + given_bytes() - 1) / given_bytes();
}

std::uint64_t Qcow2Input::FileOffset(std::size_t position) const {
  const std::uint64_t in_cluster = position % given_bytes();
  const std::uint64_t hole = in_cluster < kHalfBytes ? 0 : cluster_bytes() - given_bytes();
  return position / given_bytes() * cluster_bytes() + hole + in_cluster;
}

std::uint64_t Qcow2Input::Number(std::uint64_t offset, std::size_t length) const {
  const auto position = Position(offset, length);
  if (!position) return 0;
  return base::LoadBigEndian(std::as_bytes(std::span(bytes_)).subspan(*position, length));
}

void Qcow2Input::SetNumber(std::uint64_t offset, std::size_t length, std::uint64_t value) {
  const auto position = Position(offset, length);
  if (!position) return;
  base::StoreBigEndian(value, std::as_writable_bytes(std::span(bytes_)).subspan(*position, length));
}

void Qcow2Input::WriteTo(const MemoryFile& file) const {
  file.Resize(0);
  file.Resize(bytes_.empty() ? 0 : FileOffset(bytes_.size() - 1) + 1);
  for (std::size_t at = 0; at < bytes_.size(); at += kHalfBytes) {
    const auto half = std::string_view(bytes_).substr(at, kHalfBytes);
    if (half.find_first_not_of('\0') != std::string_view::npos) file.Write(half, FileOffset(at));
  }
}

std::optional<std::size_t> Qcow2Input::Position(std::uint64_t offset, std::size_t length) const {
  const std::uint64_t hole = cluster_bytes() - given_bytes();
  std::uint64_t in_cluster = offset % cluster_bytes();
  if (in_cluster >= kHalfBytes) {
    if (in_cluster < kHalfBytes + hole) return std::nullopt;
    in_cluster -= hole;
  }
  const std::uint64_t cluster = offset >> cluster_bits_;
  if (cluster >= clusters()) return std::nullopt;
  const std::uint64_t position = cluster * given_bytes() + in_cluster;
  if (length > bytes_.size() || position > bytes_.size() - length) return std::nullopt;
  return position;
}

}  // namespace msb::fuzz
