// SPDX-License-Identifier: Apache-2.0

#include "src/archive/tar_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/archive/sparse_map.h"
#include "src/base/progress.h"
#include "tests/support/fed_pipe.h"
#include "tests/support/support.h"
#include "tests/support/tar_builder.h"
#include "tests/support/zstd_frame.h"

namespace msb::archive {
namespace {

using test::Noise;
using test::TarArchive;
using test::TarBytes;
using test::TarEnd;

// (offset, length)
using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

constexpr std::size_t kTarBlock = ArchiveInput::kBlockBytes;

// A reader of the archive at a path.
class Reading {
 public:
  explicit Reading(const std::filesystem::path& path, Context ctx = Context::Background())
      : ctx_(std::move(ctx)), file_(path), meter_(ctx_, "read", 0), input_(ctx_, file_, meter_) {}

  TarReader& reader() { return reader_; }

 private:
  const Context ctx_;
  base::InputStream file_;
  base::ProgressMeter meter_;
  ArchiveInput input_;
  TarReader reader_{input_};
};

// An entry with all pieces of its file.
struct WholeEntry {
  TarEntry entry;
  std::string stored;  // All pieces, concatenated.
  Ranges pieces;       // Where they belong; adjacent ones are joined.
};

WholeEntry ReadWhole(TarReader& reader, TarEntry entry) {
  WholeEntry whole{.entry = std::move(entry), .stored = {}, .pieces = {}};
  std::uint64_t end = 0;
  while (const auto piece = reader.Read()) {
    if (piece->bytes.empty()) continue;
    EXPECT_GE(piece->offset, end);
    if (piece->offset == end && !whole.pieces.empty()) {
      whole.pieces.back().second += piece->bytes.size();
    } else {
      whole.pieces.emplace_back(piece->offset, piece->bytes.size());
    }
    end = piece->offset + piece->bytes.size();
    whole.stored.append(reinterpret_cast<const char*>(piece->bytes.data()), piece->bytes.size());
  }
  EXPECT_LE(end, whole.entry.size);
  return whole;
}

std::vector<WholeEntry> ReadPath(const std::filesystem::path& path) {
  std::vector<WholeEntry> entries;
  Reading reading(path);
  while (auto entry = reading.reader().Next()) {
    entries.push_back(ReadWhole(reading.reader(), *std::move(entry)));
  }
  return entries;
}

std::vector<WholeEntry> ReadTar(const std::string& tar) {
  const test::TempDir dir;
  test::WriteFile(dir / "archive", tar);
  return ReadPath(dir / "archive");
}

void ExpectRead(const WholeEntry& read, const test::TarEntry& written) {
  SCOPED_TRACE(written.name);
  EXPECT_EQ(read.entry.path, written.name);
  EXPECT_EQ(read.entry.is_directory, written.type == '5');
  const bool sparse = written.type == 'S';
  EXPECT_EQ(read.entry.is_sparse, sparse);
  EXPECT_EQ(read.entry.size, sparse ? written.apparent_size : written.content.size());
  EXPECT_EQ(read.entry.stored, written.content.size());
  EXPECT_TRUE(read.stored == written.content);
  Ranges listed;
  for (const disk::Extent& range : read.entry.ranges) {
    listed.emplace_back(range.offset, range.length);
  }
  Ranges expected;
  for (const auto& [offset, length] : written.ranges) expected.emplace_back(offset, length);
  EXPECT_TRUE(listed == expected) << testing::PrintToString(listed);
  // The pieces are the ranges of a sparse entry, or the whole file.
  if (!sparse && !written.content.empty()) expected = {{0, written.content.size()}};
  if (sparse && !expected.empty() && expected.back().second == 0) expected.pop_back();
  EXPECT_TRUE(read.pieces == expected) << testing::PrintToString(read.pieces);
}

void ExpectRead(const std::vector<WholeEntry>& read, const std::vector<test::TarEntry>& written) {
  ASSERT_EQ(read.size(), written.size());
  for (std::size_t i = 0; i < written.size(); ++i) ExpectRead(read[i], written[i]);
}

void ExpectReadable(const std::vector<test::TarEntry>& entries) {
  ExpectRead(ReadTar(TarArchive(entries)), entries);
}

// Returns a file with this many ranges, of several sizes, and optionally a hole at the end.
test::TarEntry SparseEntry(std::size_t ranges, bool hole_at_end) {
  test::TarEntry entry{.name = "sparse-" + std::to_string(ranges), .type = 'S'};
  for (std::size_t i = 0; i < ranges; ++i) {
    const std::uint64_t length = i + 1 == ranges ? 700 : 512 * (i % 3 + 1);
    entry.ranges.push_back({entry.apparent_size + 512 * (i % 2 + 1), length});
    entry.apparent_size = entry.ranges.back().offset + length;
  }
  entry.content = Noise(ranges == 0 ? 0 : 700, 1);
  for (std::size_t i = 0; i + 1 < ranges; ++i) {
    entry.content += Noise(entry.ranges[i].length, static_cast<std::uint32_t>(i));
  }
  if (hole_at_end) {
    entry.apparent_size += 1000;
    entry.ranges.push_back({entry.apparent_size, 0});
  }
  return entry;
}

void ExpectRefused(const std::string& tar) {
  EXPECT_MSB_ERROR(ReadTar(tar), ErrorKind::kSnapshotIntegrity, "the archive is ",
                   "copy or export it again");
}

// Expects that the input is refused because it does not begin as an archive does.
void ExpectForeign(const std::string& input) {
  EXPECT_MSB_ERROR(ReadTar(input), ErrorKind::kSnapshotIntegrity,
                   "not a snapshot archive, or its start is damaged", "or copy it again",
                   "WithImage");
}

TEST(TarReaderTest, ReadsFilesAndDirectories) {
  std::vector<test::TarEntry> entries = {{.name = "dir/", .type = '5'}, {.name = "empty"}};
  for (const std::size_t size : {std::size_t{1}, std::size_t{511}, std::size_t{512},
                                 std::size_t{513}, 3 * kTarBlock + 100}) {
    for (const char type : {'0', '\0'}) {
      entries.push_back({.name = "dir/" + std::to_string(entries.size()),
                         .content = Noise(size, 1),
                         .type = type});
    }
  }
  ExpectReadable(entries);
  ExpectReadable({{.name = std::string(100, 'p'), .content = "content"}});
  ExpectReadable({});
}

TEST(TarReaderTest, ReadsMapsOfAnyLengthAsTheyAreListed) {
  std::vector<test::TarEntry> entries;
  for (std::size_t ranges = 0; ranges <= 30; ++ranges) {
    entries.push_back(SparseEntry(ranges, true));
    // Another file after it shows that it ends in the right place.
    entries.push_back({.name = "behind-" + entries.back().name, .content = "content"});
    if (ranges > 0) entries.push_back(SparseEntry(ranges, false));
  }
  ExpectReadable(entries);
  // One range may fill the file, or be at its beginning.
  ExpectReadable({{.name = "full",
                   .content = Noise(700, 1),
                   .type = 'S',
                   .ranges = {{0, 700}},
                   .apparent_size = 700},
                  {.name = "begun",
                   .content = Noise(512, 1),
                   .type = 'S',
                   .ranges = {{0, 512}, {5000, 0}},
                   .apparent_size = 5000}});
}

TEST(TarReaderTest, ReadsEntriesThatCrossBlocksOfTheStream) {
  // The next entry has its header at these offsets, around the end of a block.
  for (const std::size_t header : {kTarBlock - 1536, kTarBlock - 1024, kTarBlock - 512, kTarBlock,
                                   kTarBlock + 512, 3 * kTarBlock - 1024, 3 * kTarBlock}) {
    SCOPED_TRACE(header);
    const test::TarEntry first{.name = "first", .content = Noise(header - 512, 1)};
    const test::TarEntry last{.name = "last", .content = "content"};
    ExpectReadable({first, SparseEntry(60, true), last});
    ExpectReadable({first, SparseEntry(3, false), last});
    ExpectReadable({first, last});
    ExpectReadable({first});
  }
}

TEST(TarReaderTest, ReadsACompressedArchiveFromAPipe) {
  const std::vector<test::TarEntry> entries = {{.name = "dense", .content = Noise(2'000'000, 1)},
                                               SparseEntry(30, true)};
  const std::string frame = test::Compress(TarArchive(entries));
  const test::FedPipe pipe([&](const test::FedPipe::Write& write) { write(frame); });
  ExpectRead(ReadPath(pipe.path()), entries);
}

TEST(TarReaderTest, ReadsTheLargestMapAndNoLarger) {
  const auto entry = [](std::size_t ranges) {
    test::TarEntry sparse{.name = "sparse", .content = Noise(ranges, 1), .type = 'S'};
    for (std::size_t i = 0; i < ranges; ++i) sparse.ranges.push_back({512 * i, 1});
    sparse.apparent_size = 512 * (ranges - 1) + 1;
    return sparse;
  };
  ExpectReadable({entry(kMaxSparseRanges)});
  ExpectRefused(TarArchive({entry(kMaxSparseRanges + 1)}));
}

TEST(TarReaderTest, MoreZerosMayFollowTheEnd) {
  const test::TarEntry entry{.name = "file", .content = "content"};
  for (const std::size_t records : {std::size_t{1}, std::size_t{18}, 3 * kTarBlock / 512}) {
    ExpectRead(ReadTar(TarArchive({entry}) + std::string(records * 512, '\0')), {entry});
  }
}

TEST(TarReaderTest, LimitsTheZerosAfterTheLastEntry) {
  constexpr std::size_t kMostZeros = 16 << 20;
  const test::TarEntry entry{.name = "file", .content = "content"};
  const std::string most = TarBytes(entry) + std::string(kMostZeros, '\0');
  ExpectRead(ReadTar(most), {entry});
  try {
    ReadTar(most + std::string(kTarBlock, '\0'));
    ADD_FAILURE() << "not refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kSnapshotIntegrity);
    EXPECT_NE(std::string(e.what()).find("16777216 bytes of zeros"), std::string::npos) << e.what();
  }
}

TEST(TarReaderTest, RefusesHeadersThatLibarchiveHides) {
  const test::TarEntry file{.name = "file", .content = "content"};
  const std::string pax = test::PaxRecords({{"comment", "harmless"}});
  for (const test::TarEntry& hidden :
       {test::TarEntry{.name = "pax", .content = pax, .type = 'x'},
        {.name = "pax", .content = pax, .type = 'g'},
        {.name = "pax", .content = pax, .type = 'X'},
        {.name = "././@LongLink", .content = std::string("file\0", 5), .type = 'L'},
        {.name = "././@LongLink", .content = std::string("file\0", 5), .type = 'K'},
        {.name = "volume", .type = 'V'}}) {
    SCOPED_TRACE(hidden.type);
    ExpectRefused(TarArchive({hidden, file}));
    ExpectRefused(TarArchive({file, hidden, file}));
    ExpectRefused(TarArchive({SparseEntry(5, true), hidden, file}));
    ExpectRefused(TarArchive({file, hidden}));
  }
}

TEST(TarReaderTest, RefusesEntriesThatAreNotFiles) {
  for (const char type : {'1', '2', '3', '4', '6', '7', 'A', 'D', 'M', 'N', 'Z'}) {
    SCOPED_TRACE(type);
    ExpectRefused(TarArchive({{.name = "entry", .type = type, .link = "target"}}));
  }
  // Nor does it accept a directory with content.
  ExpectRefused(
      TarArchive({{.name = "dir/", .content = "content", .type = '5'}, {.name = "file"}}));
}

TEST(TarReaderTest, RefusesBytesBetweenEntries) {
  const std::string file = TarBytes({.name = "file", .content = "content"});
  const std::string sparse = TarBytes(SparseEntry(30, true));
  for (const std::string& between :
       {std::string(512, '\0'), std::string(1024, '\0'), Noise(512, 1), Noise(100, 1)}) {
    for (const std::string& before : {file, sparse}) {
      ExpectRefused(before + between + file + TarEnd());
    }
    ExpectForeign(between + file + TarEnd());
  }
}

TEST(TarReaderTest, RefusesAMapThatIsNotThatOfItsBytes) {
  const auto refused = [](auto&& change) {
    for (const std::size_t ranges : {3U, 30U}) {
      test::TarEntry entry = SparseEntry(ranges, true);
      change(entry);
      ExpectRefused(TarArchive({entry, {.name = "file", .content = "content"}}));
    }
  };
  refused([](test::TarEntry& entry) { entry.content += Noise(512, 1); });
  refused([](test::TarEntry& entry) { entry.content.pop_back(); });
  refused([](test::TarEntry& entry) { entry.ranges.pop_back(); });
  refused([](test::TarEntry& entry) { --entry.apparent_size; });
  refused([](test::TarEntry& entry) { ++entry.apparent_size; });
  refused([](test::TarEntry& entry) { std::swap(entry.ranges[0], entry.ranges[1]); });
  refused([](test::TarEntry& entry) { --entry.ranges[0].length; });
}

TEST(TarReaderTest, RefusesAnInvalidEnd) {
  const std::string tar = TarArchive({{.name = "file", .content = Noise(2000, 1)}});
  for (const std::size_t cut : {1U, 511U, 512U, 513U, 1024U, 1025U, 2000U}) {
    SCOPED_TRACE(cut);
    ExpectRefused(tar.substr(0, tar.size() - cut));
  }
  ExpectRefused(tar + '\0');
  ExpectRefused(tar + std::string(511, '\0') + 'x');
  ExpectRefused(tar + tar);
  ExpectRefused(tar + std::string(2 * kTarBlock, '\0') + std::string(511, '\0') + 'x');
  ExpectRefused("");
  ExpectForeign(std::string(512, '\0'));
  ExpectForeign(Noise(10'000, 1));
}

TEST(TarReaderTest, PassesOnWhyTheInputEnds) {
  const test::TarEntry file{.name = "file", .content = Noise(3 * kTarBlock, 1)};
  const std::string frame = test::Compress(TarArchive({file, file}));
  ExpectRefused(frame.substr(0, frame.size() / 2));

  const auto [ctx, cancel] = Context::Background().WithCancel();
  const test::TempDir dir;
  test::WriteFile(dir / "archive", TarArchive(std::vector(20, file)));
  Reading reading(dir / "archive", ctx);
  EXPECT_TRUE(reading.reader().Next());
  cancel();
  const auto read_all = [&] {
    do {
      while (reading.reader().Read()) {
      }
    } while (reading.reader().Next());
  };
  EXPECT_MSB_ERROR(read_all(), ErrorKind::kCancelled, "cancelled");
}

}  // namespace
}  // namespace msb::archive
