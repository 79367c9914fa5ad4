// SPDX-License-Identifier: Apache-2.0

#include "tests/fuzz/tar_parts.h"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "tests/support/tar_builder.h"

namespace msb::fuzz {
namespace {

using test::kTarRecordBytes;

constexpr std::string_view kMagic = "ustar";
constexpr std::size_t kNameBytes = 100;
constexpr std::size_t kNumberBytes = 12;
constexpr std::size_t kChecksumBytes = 8;
constexpr std::size_t kTypeField = 156;
constexpr char kSparse = 'S';
constexpr std::size_t kRangesInHeader = 4;
constexpr std::size_t kRangesInExtension = 21;

std::uint64_t Padded(std::uint64_t size) {
  return (size + kTarRecordBytes - 1) / kTarRecordBytes * kTarRecordBytes;
}

std::uint8_t* RecordAt(std::string& bytes, std::size_t at) {
  return reinterpret_cast<std::uint8_t*>(bytes.data()) + at;
}

bool IsHeader(const std::uint8_t* record) {
  return std::equal(kMagic.begin(), kMagic.end(), record + test::kTarMagicField);
}

void PutChecksum(std::uint8_t* record) {
  std::uint8_t* const field = record + test::kTarChecksumField;
  std::fill_n(field, kChecksumBytes, std::uint8_t{' '});
  const unsigned sum = std::accumulate(record, record + kTarRecordBytes, 0U);
  const std::string digits = fmt::format("{:06o}", sum) + '\0' + ' ';
  std::copy(digits.begin(), digits.end(), field);
}

// Returns the offsets of the headers.
std::vector<std::size_t> HeadersOf(std::string_view archive) {
  std::vector<std::size_t> starts;
  for (std::size_t at = 0; (at = archive.find(kMagic, at)) != std::string_view::npos; ++at) {
    if (at < test::kTarMagicField) continue;
    const std::size_t start = at - test::kTarMagicField;
    const bool apart = starts.empty() || start >= starts.back() + kTarRecordBytes;
    if (apart && start + kTarRecordBytes <= archive.size()) starts.push_back(start);
  }
  return starts;
}

// Parses a field of octal digits. Returns nothing if it has other characters.
std::optional<std::uint64_t> NumberAt(std::string_view header, std::size_t at) {
  std::uint64_t number = 0;
  for (const char c : header.substr(at, kNumberBytes - 1)) {
    if (c < '0' || c > '7') return std::nullopt;
    number = number * 8 + static_cast<std::uint64_t>(c - '0');
  }
  return number;
}

// Appends up to count ranges that start at offset at, until the map ends.
void ReadRanges(std::string_view header, std::size_t at, std::size_t count,
                std::vector<disk::Extent>& ranges) {
  for (; count > 0; --count, at += 2 * kNumberBytes) {
    const auto offset = NumberAt(header, at);
    const auto length = NumberAt(header, at + kNumberBytes);
    if (!offset || !length) return;
    ranges.push_back({*offset, *length});
  }
}

std::size_t HeaderBytes(std::string_view part) {
  std::size_t size = kTarRecordBytes;
  bool extended = part[kTypeField] == kSparse && part[test::kTarIsExtended] != '\0';
  while (extended && size + kTarRecordBytes <= part.size()) {
    extended = part[size + test::kTarExtensionIsExtended] != '\0';
    size += kTarRecordBytes;
  }
  return size;
}

TarPart ReadPart(std::string_view bytes) {
  const std::size_t header = HeaderBytes(bytes);
  TarPart part{std::string(bytes.substr(0, header)), std::string(bytes.substr(header))};
  const std::size_t found = part.content.size();
  if (const auto size = NumberAt(part.header, test::kTarSizeField)) {
    const std::uint64_t padding = Padded(*size) - *size;
    part.content.resize(found - std::min<std::size_t>(found, padding));
  }
  return part;
}

}  // namespace

std::string TarPart::Name() const {
  const std::string name = header.substr(0, kNameBytes);
  return name.substr(0, name.find('\0'));
}

bool TarPart::IsSparse() const { return header[kTypeField] == kSparse; }

std::uint64_t TarPart::FileSize() const {
  return IsSparse() ? NumberAt(header, test::kTarRealSize).value_or(0) : content.size();
}

std::vector<disk::Extent> TarPart::Ranges() const {
  std::vector<disk::Extent> ranges;
  if (!IsSparse()) return ranges;
  ReadRanges(header, test::kTarSparseMap, kRangesInHeader, ranges);
  for (std::size_t at = kTarRecordBytes; at < header.size(); at += kTarRecordBytes) {
    ReadRanges(header, at, kRangesInExtension, ranges);
  }
  return ranges;
}

std::vector<TarPart> SplitTar(std::string_view archive) {
  const std::vector<std::size_t> starts = HeadersOf(archive);
  std::vector<TarPart> parts;
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const std::size_t end = i + 1 < starts.size() ? starts[i + 1] : archive.size();
    std::string_view bytes = archive.substr(starts[i], end - starts[i]);
    if (bytes.ends_with(test::TarEnd())) bytes.remove_suffix(test::TarEnd().size());
    if (bytes.size() >= kTarRecordBytes) parts.push_back(ReadPart(bytes));
  }
  return parts;
}

std::string JoinTar(const std::vector<TarPart>& parts) {
  std::string archive;
  for (const TarPart& part : parts) {
    const std::size_t start = archive.size();
    archive += part.header;
    archive.replace(start + test::kTarSizeField, kNumberBytes,
                    test::TarNumber(part.content.size(), kNumberBytes));
    PutChecksum(RecordAt(archive, start));
    archive += part.content;
    archive.resize(Padded(archive.size()));
  }
  return archive + test::TarEnd();
}

void MendChecksums(std::span<std::uint8_t> archive) {
  for (; archive.size() >= kTarRecordBytes; archive = archive.subspan(kTarRecordBytes)) {
    if (IsHeader(archive.data())) PutChecksum(archive.data());
  }
}

}  // namespace msb::fuzz
