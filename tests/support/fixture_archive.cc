// SPDX-License-Identifier: Apache-2.0

#include "tests/support/fixture_archive.h"

#include <stdexcept>
#include <string_view>

#include "tests/support/build.h"
#include "tests/support/support.h"
#include "tests/support/tar_builder.h"

namespace msb::test {
namespace {

constexpr std::size_t kPairBytes = 24;

// Parses a number as the releases write it: octal digits, followed by a NUL or a space.
std::uint64_t Octal(std::string_view field) { return std::stoull(std::string(field), nullptr, 8); }

std::string_view Text(std::string_view field) { return field.substr(0, field.find('\0')); }

// Adds the (offset, length) pairs of a header or an extension record. Unused pairs are empty.
void ReadPairs(std::string_view pairs, FixtureEntry& entry) {
  for (; pairs.size() >= kPairBytes && pairs[0] != '\0'; pairs.remove_prefix(kPairBytes)) {
    entry.ranges.emplace_back(Octal(pairs.substr(0, 12)), Octal(pairs.substr(12, 12)));
  }
}

// Reads the rest of a sparse entry's header, and removes its extension records from the archive.
void ReadSparse(std::string_view header, std::string_view& archive, FixtureEntry& entry) {
  entry.apparent_size = Octal(header.substr(kTarRealSize, 12));
  ReadPairs(header.substr(kTarSparseMap, 4 * kPairBytes), entry);
  for (bool extended = header[kTarIsExtended] != 0; extended;) {
    ReadPairs(archive.substr(0, 21 * kPairBytes), entry);
    extended = archive[kTarExtensionIsExtended] != 0;
    archive.remove_prefix(kTarRecordBytes);
  }
}

// Removes the first entry from the archive and returns it.
FixtureEntry TakeEntry(std::string_view& archive) {
  const std::string_view header = archive.substr(0, kTarRecordBytes);
  archive.remove_prefix(kTarRecordBytes);
  const std::uint64_t size = Octal(header.substr(kTarSizeField, 12));
  FixtureEntry entry{
      .path = std::string(Text(header.substr(0, 100))), .stored = {}, .apparent_size = size};
  const char type = header[156];
  if (type == 'S') {
    ReadSparse(header, archive, entry);
  } else if (type != '0' && type != '\0') {
    throw std::runtime_error("no file: " + entry.path);
  }
  entry.stored = archive.substr(0, size);
  archive.remove_prefix((size + kTarRecordBytes - 1) / kTarRecordBytes * kTarRecordBytes);
  return entry;
}

}  // namespace

std::vector<FixtureEntry> ReadFixtureArchive(const std::string& release, const std::string& name) {
  const CommandResult tar =
      RunCommand("zstd -dc '" + (FixturesDir() / release / name).native() + "'");
  if (tar.status != 0) throw std::runtime_error("cannot decompress: " + tar.output);
  std::vector<FixtureEntry> entries;
  for (std::string_view rest = tar.output; rest.at(0) != '\0';) entries.push_back(TakeEntry(rest));
  return entries;
}

}  // namespace msb::test
