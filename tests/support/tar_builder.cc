// SPDX-License-Identifier: Apache-2.0

#include "tests/support/tar_builder.h"

#include <fmt/format.h>

#include <algorithm>

namespace msb::test {
namespace {

constexpr std::size_t kRangesInHeader = 4;
constexpr std::size_t kRangesInExtension = 21;

void Put(std::string& bytes, std::size_t offset, const std::string& field) {
  bytes.replace(offset, field.size(), field);
}

std::string Checksum(const std::string& header) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kTarRecordBytes; ++i) {
    const bool in_field = i >= kTarChecksumField && i < kTarChecksumField + 8;
    sum += in_field ? ' ' : static_cast<unsigned char>(header[i]);
  }
  return fmt::format("{:07o}", sum) + '\0';
}

void PutRanges(std::string& bytes, std::size_t at, const std::vector<TarRange>& ranges,
               std::size_t first, std::size_t count) {
  for (std::size_t i = first; i < std::min(first + count, ranges.size()); ++i, at += 24) {
    Put(bytes, at, TarNumber(ranges[i].offset));
    Put(bytes, at + 12, TarNumber(ranges[i].length));
  }
}

// Writes the map into the header and appends the extension records.
void PutSparseMap(std::string& header, const TarEntry& entry) {
  PutRanges(header, kTarSparseMap, entry.ranges, 0, kRangesInHeader);
  Put(header, kTarRealSize, TarNumber(entry.apparent_size));
  std::size_t flag = kTarIsExtended;
  for (std::size_t next = kRangesInHeader; next < entry.ranges.size(); next += kRangesInExtension) {
    header[flag] = 1;
    const std::size_t extension = header.size();
    header.append(kTarRecordBytes, '\0');
    PutRanges(header, extension, entry.ranges, next, kRangesInExtension);
    flag = extension + kTarExtensionIsExtended;
  }
}

}  // namespace

std::string TarBase256(std::int64_t number, std::size_t width) {
  std::string field(width, number < 0 ? '\xff' : '\0');
  auto rest = static_cast<std::uint64_t>(number);
  for (std::size_t i = 0; i < std::min<std::size_t>(width, 8); ++i, rest >>= 8) {
    field[width - 1 - i] = static_cast<char>(rest);
  }
  field[0] = static_cast<char>(field[0] | '\x80');
  return field;
}

std::string TarNumber(std::uint64_t number, std::size_t width) {
  std::string digits = fmt::format("{:0{}o}", number, width - 1);
  if (digits.size() < width) return digits + '\0';
  std::string field = TarBase256(static_cast<std::int64_t>(number), width);
  // A number of 2^63 or more was encoded as negative: clear the bytes in front of it.
  if (width > 8) std::fill_n(field.begin() + 1, width - 9, '\0');
  field[0] = '\x80';
  return field;
}

std::string TarHeader(const TarEntry& entry) {
  std::string header(kTarRecordBytes, '\0');
  Put(header, 0, entry.name.substr(0, 100));
  Put(header, 100, TarNumber(0100644, 8));
  Put(header, 108, TarNumber(0, 8));
  Put(header, 116, TarNumber(0, 8));
  Put(header, kTarSizeField, TarNumber(entry.size.value_or(entry.content.size())));
  Put(header, 136, TarNumber(1'700'000'000));
  header[156] = entry.type;
  Put(header, 157, entry.link.substr(0, 100));
  Put(header, kTarMagicField, std::string("ustar  \0", 8));
  Put(header, 329, TarNumber(0, 8));
  Put(header, 337, TarNumber(0, 8));
  if (entry.type == 'S') PutSparseMap(header, entry);
  for (const auto& [offset, bytes] : entry.patches) Put(header, offset, bytes);
  Put(header, kTarChecksumField, entry.checksum.value_or(Checksum(header)));
  return header;
}

std::string TarBytes(const TarEntry& entry) {
  std::string bytes = TarHeader(entry) + entry.content;
  bytes.append((kTarRecordBytes - bytes.size() % kTarRecordBytes) % kTarRecordBytes, '\0');
  return bytes;
}

std::string TarEnd() { return std::string(2 * kTarRecordBytes, '\0'); }

std::string TarArchive(const std::vector<TarEntry>& entries) {
  std::string bytes;
  for (const TarEntry& entry : entries) bytes += TarBytes(entry);
  return bytes + TarEnd();
}

std::string PaxRecords(const std::vector<std::pair<std::string, std::string>>& records) {
  std::string bytes;
  for (const auto& [key, value] : records) {
    const std::string rest = " " + key + "=" + value + "\n";
    // The length includes its own digits.
    std::size_t length = rest.size() + 1;
    while (rest.size() + std::to_string(length).size() != length) ++length;
    bytes += std::to_string(length) + rest;
  }
  return bytes;
}

}  // namespace msb::test
