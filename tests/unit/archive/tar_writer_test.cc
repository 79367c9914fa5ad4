// SPDX-License-Identifier: Apache-2.0

#include "src/archive/tar_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/build.h"
#include "tests/support/fixture_archive.h"
#include "tests/support/support.h"
#include "tests/support/tar_builder.h"

namespace msb::archive {
namespace {

using test::Bytes;
using test::kTarRecordBytes;
using test::Noise;
using test::TarArchive;
using test::TarBytes;
using test::TarHeader;
using test::TarNumber;

// The time that test::TarHeader writes.
constexpr std::int64_t kTime = 1'700'000'000;
constexpr std::uint64_t kGi = std::uint64_t{1} << 30;

class MemorySink : public ByteSink {
 public:
  void Write(std::span<const std::byte> bytes) override {
    EXPECT_FALSE(finished_);
    written_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void WriteZeros(std::uint64_t count) override {
    EXPECT_FALSE(finished_);
    written_.append(count, '\0');
  }
  void Finish() override {
    EXPECT_FALSE(finished_);
    finished_ = true;
  }

  const std::string& written() const { return written_; }
  bool finished() const { return finished_; }

 private:
  std::string written_;
  bool finished_ = false;
};

// Returns the map of a file of size bytes that tar lists with these ranges.
SparseMap MapOf(const std::vector<test::TarRange>& listed, std::uint64_t size) {
  SparseMap map{.ranges = {}, .size = size};
  for (const auto& [offset, length] : listed) {
    if (length > 0) map.ranges.push_back({offset, length});
  }
  return map;
}

std::string SparseHeader(const SparseMap& map) {
  MemorySink sink;
  TarWriter(sink, kTime).BeginSparseFile("sparse", map);
  return sink.written();
}

std::string ExpectedHeader(const std::vector<test::TarRange>& listed, const SparseMap& map) {
  return TarHeader({.name = "sparse",
                    .type = 'S',
                    .ranges = listed,
                    .apparent_size = map.size,
                    .size = map.StoredBytes()});
}

std::string DenseHeader(const std::string& path, std::uint64_t size, std::int64_t mtime = kTime) {
  MemorySink sink;
  TarWriter(sink, mtime).BeginFile(path, size);
  return sink.written();
}

// Writes the entries of a release's archives again, with the times that they have there.
TEST(TarWriterTest, WritesTheArchiveOfRelease0618) {
  for (const std::string name : {"labelled.tar.zst", "labelled-with-image.tar.zst"}) {
    const std::string original =
        test::RunCommand("zstd -dc '" + (test::FixturesDir() / "0.6.18" / name).native() + "'")
            .output;
    std::size_t position = 0;
    std::size_t most_ranges = 0;
    for (const test::FixtureEntry& entry : test::ReadFixtureArchive("0.6.18", name)) {
      SCOPED_TRACE(name + " " + entry.path);
      ASSERT_LT(position, original.size());
      MemorySink sink;
      TarWriter tar(sink, std::stoll(original.substr(position + 136, 11), nullptr, 8));
      if (entry.ranges.empty()) {
        tar.AddFile(entry.path, entry.stored);
      } else {
        std::vector<test::TarRange> listed;
        for (const auto& [offset, length] : entry.ranges) listed.push_back({offset, length});
        tar.BeginSparseFile(entry.path, MapOf(listed, entry.apparent_size));
        tar.Write(Bytes(entry.stored));
        tar.EndFile();
        most_ranges = std::max(most_ranges, listed.size());
      }
      const std::string& written = sink.written();
      // The release wrote the inventory in another way, without an owner.
      const std::size_t first = entry.path == "archive.json" ? kTarRecordBytes : 0;
      EXPECT_EQ(written.substr(first, 2 * kTarRecordBytes),
                original.substr(position + first, 2 * kTarRecordBytes));
      EXPECT_TRUE(written.substr(first) ==
                  original.substr(position + first, written.size() - first));
      position += written.size();
    }
    // There was an extension record.
    EXPECT_GT(most_ranges, 4U);
    MemorySink end;
    TarWriter(end, kTime).Finish();
    EXPECT_TRUE(end.finished());
    EXPECT_EQ(end.written(), original.substr(position));
  }
}

TEST(TarWriterTest, FilesArePaddedToRecordsAndTwoOfZerosEndTheArchive) {
  MemorySink sink;
  TarWriter tar(sink, kTime);
  std::vector<test::TarEntry> entries;
  for (const std::size_t size : {0U, 1U, 511U, 512U, 513U, 3000U}) {
    const std::string content = Noise(size, 1);
    const std::string path = std::to_string(size);
    tar.AddFile(path, content);
    entries.push_back({.name = path, .content = content});
  }
  EXPECT_FALSE(sink.finished());
  tar.Finish();
  EXPECT_TRUE(sink.finished());
  EXPECT_TRUE(sink.written() == TarArchive(entries));
}

TEST(TarWriterTest, FilesComeInParts) {
  MemorySink sink;
  TarWriter tar(sink, kTime);
  tar.BeginFile("file", 1000);
  tar.Write(Bytes("head"));
  tar.WriteZeros(990);
  tar.Write(Bytes("middle"));
  tar.WriteZeros(0);
  tar.EndFile();
  EXPECT_EQ(sink.written(),
            TarBytes({.name = "file", .content = "head" + std::string(990, '\0') + "middle"}));
}

TEST(TarWriterTest, MapsOfAnyLength) {
  for (const std::size_t count : {0U, 1U, 2U, 3U, 4U, 5U, 24U, 25U, 26U, 45U, 46U, 47U, 1000U}) {
    for (const bool hole_at_end : {true, false}) {
      SCOPED_TRACE(std::to_string(count) + (hole_at_end ? " and a hole" : ""));
      std::vector<test::TarRange> listed;
      for (std::size_t i = 0; i < count; ++i) listed.push_back({8192 * i + 4096, 512 * (i + 1)});
      std::uint64_t size = listed.empty() ? 0 : listed.back().offset + listed.back().length;
      if (hole_at_end) {
        size += 777;
        listed.push_back({size, 0});
      }
      const SparseMap map = MapOf(listed, size);
      EXPECT_EQ(SparseHeader(map), ExpectedHeader(listed, map));
    }
  }
}

TEST(TarWriterTest, SparseFilesCarryTheirRangesInARow) {
  MemorySink sink;
  TarWriter tar(sink, kTime);
  const std::vector<test::TarRange> listed = {{512, 512}, {4096, 100}};
  const std::string stored = Noise(612, 1);
  tar.BeginSparseFile("file", MapOf(listed, 4196));
  tar.Write(Bytes(stored).first(512));
  tar.Write(Bytes(stored).subspan(512));
  tar.EndFile();
  EXPECT_EQ(sink.written(), TarBytes({.name = "file",
                                      .content = stored,
                                      .type = 'S',
                                      .ranges = listed,
                                      .apparent_size = 4196}));
}

TEST(TarWriterTest, NumbersTooLargeForOctalDigitsAreBinary) {
  EXPECT_EQ(DenseHeader("file", 8 * kGi - 1).substr(test::kTarSizeField, 12),
            std::string("77777777777\0", 12));
  EXPECT_EQ(DenseHeader("file", 8 * kGi).substr(test::kTarSizeField, 12),
            std::string("\x80\0\0\0\0\0\0\x02\0\0\0\0", 12));
  EXPECT_EQ(DenseHeader("file", 8 * kGi), TarHeader({.name = "file", .size = 8 * kGi}));

  // Offset, length and size of a sparse file, each on its own.
  for (const std::vector<test::TarRange>& listed :
       {std::vector<test::TarRange>{{8 * kGi - 512, 512}}, {{8 * kGi, 512}}, {{512, 8 * kGi}}}) {
    const SparseMap map = MapOf(listed, listed[0].offset + listed[0].length);
    EXPECT_EQ(SparseHeader(map), ExpectedHeader(listed, map));
  }
  const std::string header = SparseHeader(MapOf({{8 * kGi, 512}}, 8 * kGi + 512));
  EXPECT_EQ(header.substr(test::kTarSparseMap, 12),
            std::string("\x80\0\0\0\0\0\0\x02\0\0\0\0", 12));
  EXPECT_EQ(header.substr(test::kTarRealSize, 12),
            std::string("\x80\0\0\0\0\0\0\x02\0\0\x02\0", 12));
}

TEST(TarWriterTest, TimesBefore1970AreNone) {
  EXPECT_EQ(DenseHeader("file", 1, -1).substr(136, 12), TarNumber(0));
  EXPECT_EQ(DenseHeader("file", 1, 0).substr(136, 12), TarNumber(0));
  EXPECT_EQ(DenseHeader("file", 1, kTime).substr(136, 12), TarNumber(kTime));
}

TEST(TarWriterTest, PathsOf100BytesAndNoMore) {
  const std::string longest(100, 'p');
  EXPECT_EQ(DenseHeader(longest, 1), TarHeader({.name = longest, .size = 1}));
  MemorySink sink;
  TarWriter tar(sink, kTime);
  EXPECT_MSB_ERROR(tar.AddFile(longest + "p", "content"), ErrorKind::kUnsupportedOperation,
                   "path '" + longest + "p'", "at most 100 bytes");
  EXPECT_MSB_ERROR(tar.BeginFile(longest + "p", 1), ErrorKind::kUnsupportedOperation,
                   "path '" + longest + "p'", "at most 100 bytes");
  EXPECT_MSB_ERROR(tar.BeginSparseFile(longest + "p", MapOf({}, 512)),
                   ErrorKind::kUnsupportedOperation, "path '" + longest + "p'",
                   "at most 100 bytes");
  EXPECT_EQ(sink.written(), "");
}

TEST(TarWriterTest, AFileOfAnotherSizeThanItSaidIsABug) {
  for (const std::size_t written : {0U, 9U, 11U}) {
    SCOPED_TRACE(written);
    MemorySink sink;
    TarWriter tar(sink, kTime);
    tar.BeginFile("file", 10);
    tar.WriteZeros(written / 2);
    tar.Write(Bytes(Noise(written - written / 2, 1)));
    EXPECT_MSB_ERROR(tar.EndFile(), ErrorKind::kInternal, "does not have the size in its header");

    tar.BeginSparseFile("sparse", MapOf({{512, 10}}, 522));
    tar.Write(Bytes(Noise(written, 1)));
    EXPECT_MSB_ERROR(tar.EndFile(), ErrorKind::kInternal, "does not have the size in its header");
  }
}

}  // namespace
}  // namespace msb::archive
