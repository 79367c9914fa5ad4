// SPDX-License-Identifier: Apache-2.0
//
// Archives whose tar headers are damaged or false.

#include <gtest/gtest.h>

#include "tests/support/import_home.h"
#include "tests/support/tar_builder.h"

namespace msb::test {
namespace {

using HostileHeaderTest = ImportHome;

// Returns the offsets of the headers in Tar(). The last one is that of archive.json.
std::vector<std::size_t> HeaderOffsets(const SampleArchive& archive) {
  std::vector<std::size_t> offsets = {0};
  for (const TarEntry& entry : archive.entries) {
    offsets.push_back(offsets.back() + TarBytes(entry).size());
  }
  return offsets;
}

std::string Flipped(std::string bytes, std::size_t at) {
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  return bytes;
}

// Flips the lowest bit, which never turns a NUL into a space: that may end a number, too. The
// checksum also covers what nothing reads, such as the owner's name.
TEST_F(HostileHeaderTest, AFlippedBitInAnyByteOfAHeader) {
  // One layout is enough: they have the same headers.
  const SampleArchive archive = MakeSampleArchive(SampleLayout::kInventory);
  const std::string sound = archive.Tar();
  for (const std::size_t header : HeaderOffsets(archive)) {
    for (std::size_t i = 0; i < kTarRecordBytes; ++i) {
      SCOPED_TRACE("byte " + std::to_string(i) + " of the header at " + std::to_string(header));
      ExpectRefused(Flipped(sound, header + i));
    }
  }
}

// The extension records of a sparse map have no checksum, so only damage to the fields in use is
// found. The range that ends a trailing hole is left to hostile_sparse_test.cc.
TEST_F(HostileHeaderTest, AFlippedBitInTheExtensionOfASparseMap) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive archive = MakeSampleArchive(layout);
    const std::string sound = archive.Tar();
    std::size_t extension = kTarRecordBytes;
    for (const TarEntry& entry : archive.entries) {
      if (entry.type == 'S') break;
      extension += TarBytes(entry).size();
    }
    const std::size_t in_use = (archive.entries.back().ranges.size() - 5) * 24;
    for (std::size_t i = 0; i < in_use; ++i) {
      if (i % 12 == 11) continue;  // The NUL that ends a number.
      SCOPED_TRACE("byte " + std::to_string(i) + " of " + archive.entries[0].name);
      ExpectRefused(Flipped(sound, extension + i));
    }
    ExpectRefused(Flipped(sound, extension + kTarExtensionIsExtended));
  }
}

TEST_F(HostileHeaderTest, WrongChecksums) {
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive archive = MakeSampleArchive(layout);
    for (std::size_t i = 0; i < archive.entries.size(); ++i) {
      for (const std::string& checksum :
           {std::string(8, '\0'), std::string(8, ' '), std::string(8, '0'),
            std::string("0000001\0", 8), std::string(8, '7'), std::string("garbage\0", 8),
            std::string(8, '\xff'), TarBase256(1, 8)}) {
        SCOPED_TRACE("'" + checksum + "' for " + archive.entries[i].name);
        archive.entries[i].checksum = checksum;
        ExpectRefused(archive.Tar());
        archive.entries[i].checksum.reset();
      }
    }
  }
}

TEST_F(HostileHeaderTest, MalformedSizes) {
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive archive = MakeSampleArchive(layout);
    for (std::size_t i = 0; i < archive.entries.size(); ++i) {
      for (const std::string& field :
           {TarNumber(std::uint64_t{1} << 63), TarNumber((std::uint64_t{1} << 63) - 1),
            TarNumber(~std::uint64_t{0}), TarBase256(-1), TarBase256(-4096), TarBase256(INT64_MIN),
            std::string("\x80") + std::string(3, '\x7f') + std::string(8, '\0'),
            std::string(12, '\0'), std::string(12, ' '), std::string("garbage12345"),
            std::string("-0000000001\0", 12), std::string("0000000009\0\0", 12),
            std::string("0x0000001000"), std::string("00000000010x"),
            std::string("77777777777\0", 12)}) {
        SCOPED_TRACE("'" + field + "' for " + archive.entries[i].name);
        archive.entries[i].patches = {{kTarSizeField, field}};
        // A dense entry of 8 EiB also exceeds the free space.
        ExpectRefused(archive.Tar(), {ErrorKind::kSnapshotIntegrity, ErrorKind::kIO});
        archive.entries[i].patches.clear();
      }
    }
  }
}

TEST_F(HostileHeaderTest, SizesOtherThanTheContents) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const bool sparse : {false, true}) {
      SampleArchive archive = MakeSampleArchive(layout, {.sparse = sparse});
      for (std::size_t i = 0; i < archive.entries.size(); ++i) {
        const std::size_t size = archive.entries[i].content.size();
        for (const std::size_t lie :
             {std::size_t{0}, size - 1, size + 1, size - 512, size + 512, size * 2}) {
          SCOPED_TRACE(std::to_string(lie) + " for " + archive.entries[i].name);
          archive.entries[i].size = lie;
          ExpectRefused(archive.Tar());
          archive.entries[i].size.reset();
        }
      }
    }
  }
}

TEST_F(HostileHeaderTest, FormatsThatAreNoTar) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const std::string& magic :
         {std::string(8, '\0'), std::string("garbage!"), std::string("USTAR  \0", 8)}) {
      SampleArchive archive = MakeSampleArchive(layout);
      SCOPED_TRACE("'" + magic + "' for " + archive.entries[0].name);
      // Only GNU headers can have old-GNU sparse entries.
      archive.entries.back().patches = {{kTarMagicField, magic}};
      ExpectRefused(archive.Tar());
    }
  }
}

}  // namespace
}  // namespace msb::test
