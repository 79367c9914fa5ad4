// SPDX-License-Identifier: Apache-2.0

#include "src/archive/tar_header.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "src/archive/sparse_map.h"
#include "src/base/fields.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

using disk::Extent;

[[noreturn]] void RefuseHeader(std::string_view problem) {
  base::Throw(ErrorKind::kSnapshotIntegrity,
              "the archive is damaged: a header {}; copy or export it again", problem);
}

std::uint64_t CheckedNumber(std::uint64_t value) {
  if (value > base::kMaxJsonInteger) RefuseHeader("has a number above 2^53 - 1");
  return value;
}

// Parses a number: octal digits, optionally after spaces and followed by NULs or spaces, or
// big-endian binary after a byte 0x80.
std::uint64_t ReadNumber(const std::array<char, 12>& field) {
  std::uint64_t value = 0;
  if (static_cast<unsigned char>(field[0]) == 0x80) {
    for (const char byte : std::span(field).subspan(1)) {
      value = CheckedNumber(value << 8 | static_cast<unsigned char>(byte));
    }
    return value;
  }
  const auto* digit = std::find_if(field.begin(), field.end(), [](char c) { return c != ' '; });
  const auto* const end =
      std::find_if(digit, field.end(), [](char c) { return c < '0' || c > '7'; });
  const bool ended = std::all_of(end, field.end(), [](char c) { return c == '\0' || c == ' '; });
  if (digit == end || !ended) RefuseHeader("has a malformed number");
  for (; digit != end; ++digit) value = value * 8 + static_cast<std::uint64_t>(*digit - '0');
  return CheckedNumber(value);
}

bool IsEmpty(const TarRangeField& field) {
  const auto is_nul = [](char c) { return c == '\0'; };
  return std::all_of(field.offset.begin(), field.offset.end(), is_nul) &&
         std::all_of(field.length.begin(), field.length.end(), is_nul);
}

}  // namespace

RawTarHeader::RawTarHeader(TarRecord record) {
  TarHeader header;
  std::memcpy(&header, record.data(), sizeof header);
  type_ = header.type;
  stored_ = ReadNumber(header.size);
  size_ = stored_;
  if (!IsSparse()) return;
  size_ = ReadNumber(header.real_size);
  AddRanges(header.ranges, header.is_extended);
}

void RawTarHeader::AddExtension(TarRecord record) {
  TarExtension extension;
  std::memcpy(&extension, record.data(), sizeof extension);
  ++records_;
  AddRanges(extension.ranges, extension.is_extended);
}

void RawTarHeader::AddRanges(std::span<const TarRangeField> fields, char is_extended) {
  for (const TarRangeField& field : fields) {
    list_ended_ = list_ended_ || IsEmpty(field);
    if (!list_ended_) {
      ranges_.push_back({ReadNumber(field.offset), ReadNumber(field.length)});
    } else if (!IsEmpty(field)) {
      RefuseHeader("has ranges after the end of its sparse map");
    }
  }
  if (ranges_.size() > kMaxSparseRanges) {
    RefuseHeader("exceeds the limit of " + std::to_string(kMaxSparseRanges) + " sparse ranges");
  }
  if (is_extended != '\0' && (is_extended != '\1' || list_ended_)) {
    RefuseHeader("continues after the end of its sparse map");
  }
  incomplete_ = is_extended != '\0';
}

void RawTarHeader::CheckMap() const {
  std::uint64_t sum = 0;
  std::uint64_t end = 0;
  for (const Extent& range : ranges_) {
    const bool first = &range == &ranges_.front();
    const bool last = &range == &ranges_.back();
    const bool ends_hole = last && range.offset == size_ && range.length == 0;
    const bool aligned = range.offset % kTarRecordBytes == 0 || ends_hole;
    if ((!first && range.offset <= end) || (range.length == 0 && !ends_hole) || !aligned) {
      RefuseHeader(
          "has sparse ranges that are empty, unaligned, adjacent, overlapping or out of order");
    }
    end = range.end();
    sum += range.length;
    if (end > size_) RefuseHeader("has sparse ranges beyond the end of its file");
  }
  if (end != size_ || sum != stored_) {
    RefuseHeader("has a sparse map that does not match the size of its file");
  }
}

}  // namespace msb::archive
