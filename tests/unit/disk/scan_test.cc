// SPDX-License-Identifier: Apache-2.0

#include "src/disk/scan.h"

#include "tests/unit/disk/scan_checker.h"

namespace msb::disk {
namespace {

TEST(ScanTest, ReadsFilesOfEverySize) {
  const TempDir dir;
  for (const std::uint64_t size :
       {std::uint64_t{1}, std::uint64_t{4095}, kBlockBytes - 1, kBlockBytes, kBlockBytes + 1,
        kRegionBytes - 1, kRegionBytes, kRegionBytes + 1, 5 * kRegionBytes + 70'000}) {
    SCOPED_TRACE(size);
    test::WriteFile(dir / "full", Noise(size, 1));
    ExpectGoodScan(dir / "full", size);
    MakeSparseFile(dir / "last-byte", size, {{size - 1, "x"}});
    ExpectGoodScan(dir / "last-byte", size);
    MakeSparseFile(dir / "first-byte", size, {{0, "x"}});
    ExpectGoodScan(dir / "first-byte", size);
  }
}

TEST(ScanTest, ReadsNoHoles) {
  const TempDir dir;
  const auto fail = [](const Region&) { ADD_FAILURE() << "there is no data"; };
  Caller consumer(fail, fail);
  MakeSparseFile(dir / "empty", 0, {});
  EXPECT_NO_THROW(Scan(Context::Background(), dir / "empty", 0, consumer));
  MakeSparseFile(dir / "hole", std::uint64_t{100} << 30, {});
  EXPECT_NO_THROW(Scan(Context::Background(), dir / "hole", std::uint64_t{100} << 30, consumer));
  MakeSparseFile(dir / "tail", std::uint64_t{100} << 30, {{std::uint64_t{99} << 30, "x"}});
  Caller counter(DoNothing, DoNothing);
  Scan(Context::Background(), dir / "tail", std::uint64_t{100} << 30, counter);
  EXPECT_EQ(counter.committed(),
            (std::vector<std::uint64_t>{(std::uint64_t{99} << 30) / kRegionBytes}));
}

TEST(ScanTest, ReadsNoFurtherThanTheSizeGiven) {
  const TempDir dir;
  test::WriteFile(dir / "file", Noise(3 * kRegionBytes, 1));
  for (const std::uint64_t size : {std::uint64_t{1}, kBlockBytes + 1, kRegionBytes + 4097}) {
    SCOPED_TRACE(size);
    ExpectGoodScan(dir / "file", size);
  }
}

TEST(ScanTest, PadsBlocksBetweenDataThatIsClose) {
  const TempDir dir;
  const std::string page = Noise(4096, 1);
  MakeSparseFile(dir / "file", 2 * kRegionBytes,
                 {{8192, page},                        // Inside a block,
                  {kBlockBytes - 4096, page},          // at its end,
                  {kBlockBytes + 8192, page},          // in the next,
                  {4 * kBlockBytes, page},             // at the start of one,
                  {kRegionBytes - 4096, page + page},  // across regions,
                  {2 * kRegionBytes - 4096, page}});   // and at the end.
  ExpectGoodScan(dir / "file", 2 * kRegionBytes);
}

TEST(ScanTest, ReadsManyLayoutsAsAPlainReadDoes) {
  const TempDir dir;
  std::mt19937 random(7);
  const auto below = [&](std::uint64_t limit) { return random() % limit; };
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(round);
    const std::uint64_t size = 1 + below(4 * kRegionBytes);
    Data data;
    for (std::uint64_t n = below(12); n > 0; --n) {
      const std::uint64_t offset = below(size);
      const std::uint64_t length =
          std::min(1 + below(round % 2 == 0 ? 300'000 : 9000), size - offset);
      data.emplace_back(offset, Noise(length, static_cast<std::uint32_t>(n)));
    }
    MakeSparseFile(dir / "file", size, data);
    ExpectGoodScan(dir / "file", size);
  }
}

TEST(ScanTest, CommitsInOrderHoweverLongTheFirstRegionTakes) {
  const TempDir dir;
  MakeRegions(dir / "file", 20);
  std::atomic<int> commits = 0;
  const auto process = [&](const Region& region) {
    if (region.offset == 0) LingerUnless([&] { return commits > 0; });
  };
  Caller consumer(process, [&](const Region&) { ++commits; });
  Scan(Context::Background(), dir / "file", 20 * kRegionBytes, consumer);
  EXPECT_EQ(consumer.committed(), FirstNumbers(20));
}

TEST(ScanTest, CommitsNothingAfterARegionThatFailed) {
  const TempDir dir;
  MakeRegions(dir / "file", 20);
  std::atomic<int> processed = 0;
  const auto process = [&](const Region& region) {
    if (region.offset != 0) {
      ++processed;
      return;
    }
    LingerUnless([&] { return processed > 0; });
    throw std::domain_error("bad region");
  };
  Caller consumer(process, DoNothing);
  EXPECT_THROW(Scan(Context::Background(), dir / "file", 20 * kRegionBytes, consumer),
               std::domain_error);
  EXPECT_TRUE(consumer.committed().empty());
}

TEST(ScanTest, PassesOnExceptionsOfProcess) {
  const TempDir dir;
  MakeRegions(dir / "file", 20);
  for (const std::uint64_t bad : {0U, 1U, 7U, 19U}) {
    const auto process = [&](const Region& region) {
      if (region.offset == bad * kRegionBytes) throw std::domain_error("bad region");
    };
    Caller consumer(process, DoNothing);
    EXPECT_THROW(Scan(Context::Background(), dir / "file", 20 * kRegionBytes, consumer),
                 std::domain_error);
    EXPECT_LE(consumer.committed().size(), bad);
    EXPECT_EQ(consumer.committed(), FirstNumbers(consumer.committed().size()));
  }
}

TEST(ScanTest, PassesOnExceptionsOfCommit) {
  const TempDir dir;
  MakeRegions(dir / "file", 20);
  for (const std::uint64_t bad : {0U, 1U, 7U, 19U}) {
    const auto commit = [&](const Region& region) {
      if (region.offset == bad * kRegionBytes) throw std::domain_error("bad region");
    };
    Caller consumer(DoNothing, commit);
    EXPECT_THROW(Scan(Context::Background(), dir / "file", 20 * kRegionBytes, consumer),
                 std::domain_error);
    EXPECT_EQ(consumer.committed(), FirstNumbers(bad));
  }
}

TEST(ScanTest, PassesOnOneOfManyThrows) {
  const TempDir dir;
  MakeRegions(dir / "file", 20);
  const auto fail = [](const Region&) { throw std::domain_error("bad region"); };
  Caller consumer(fail, fail);
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(Scan(Context::Background(), dir / "file", 20 * kRegionBytes, consumer),
                 std::domain_error);
  }
  EXPECT_TRUE(consumer.committed().empty());
}

TEST(ScanTest, StopsSoonWhenCancelled) {
  const TempDir dir;
  MakeRegions(dir / "file", 100);
  const auto [ctx, cancel] = Context::Background().WithCancel();
  const auto commit = [&cancel = cancel](const Region& region) {
    if (region.offset == 3 * kRegionBytes) cancel();
  };
  Caller consumer(DoNothing, commit);
  EXPECT_MSB_ERROR(Scan(ctx, dir / "file", 100 * kRegionBytes, consumer), ErrorKind::kCancelled,
                   "cancelled");
  // Each worker may have been working on one more.
  EXPECT_GE(consumer.committed().size(), 4U);
  EXPECT_LE(consumer.committed().size(), 4U + 16U);
}

void ScanTheRanges(const fs::path& path, std::uint64_t size, const std::vector<Extent>& ranges,
                   RegionConsumer& consumer, const Context& ctx = Context::Background()) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  base::ProgressMeter meter(ctx, "scan", 0);
  ScanRanges(fd.get(), size, ranges, meter, consumer);
  meter.Finish();
}

TEST(ScanRangesTest, ReadsTheRangesIncludingTheirHoles) {
  const TempDir dir;
  const std::uint64_t size = 4 * kRegionBytes + 100;
  MakeSparseFile(dir / "file", size,
                 {{8192, Noise(4096, 1)},
                  {kRegionBytes - 4096, Noise(8192, 2)},
                  {3 * kRegionBytes, Noise(kRegionBytes + 100, 3)}});
  const std::string content = test::ReadFile(dir / "file");
  const std::vector<std::vector<Extent>> all_ranges = {
      {{0, size}},                                                        // All of it,
      {{512, 512}, {4096, 8192}},                                         // holes and data,
      {{kRegionBytes - 10'240, 20'480}},                                  // across regions,
      {{2 * kRegionBytes, 512}},                                          // a hole alone,
      {{8704, 512}, {9728, 512}, {3 * kRegionBytes, kRegionBytes + 100}}  // parts of the data,
  };
  for (const std::vector<Extent>& ranges : all_ranges) {
    // Bytes outside of the ranges are not data, and therefore read as zeros.
    std::string expected(size, '\0');
    std::uint64_t bytes = 0;
    for (const Extent& range : ranges) {
      expected.replace(range.offset, range.length, content, range.offset, range.length);
      bytes += range.length;
    }
    Checker checker(expected);
    std::uint64_t reported = 0;
    ScanTheRanges(dir / "file", size, ranges, checker,
                  Context::Background().WithProgress(
                      [&](const Progress& progress) { reported = progress.bytes_done; }));
    EXPECT_EQ(checker.processed(), Pairs(ranges));
    EXPECT_EQ(checker.committed(), Pairs(ranges));
    EXPECT_EQ(reported, bytes);
  }
}

TEST(ScanRangesTest, ReadsNothingWithoutRanges) {
  const TempDir dir;
  test::WriteFile(dir / "file", Noise(kRegionBytes, 1));
  const auto fail = [](const Region&) { ADD_FAILURE() << "there is no range"; };
  Caller consumer(fail, fail);
  ScanTheRanges(dir / "file", kRegionBytes, {}, consumer);
}

TEST(ScanRangesTest, ReportsAFileShorterThanItsRanges) {
  const TempDir dir;
  test::WriteFile(dir / "file", Noise(1000, 1));
  Caller consumer(DoNothing, DoNothing);
  EXPECT_MSB_ERROR(ScanTheRanges(dir / "file", 5000, {{0, 5000}}, consumer), ErrorKind::kIO,
                   "/file ends at byte 1000, 4000 bytes before its expected end", "try again");
  EXPECT_TRUE(consumer.committed().empty());
}

TEST(ScanTest, ReportsAnUnreadableFile) {
  const TempDir dir;
  test::WriteFile(dir / "file", "content");
  const base::UniqueFd fd(open((dir / "file").c_str(), O_WRONLY | O_CLOEXEC));
  const Context ctx = Context::Background();
  base::ProgressMeter meter(ctx, "scan", 0);
  RegionConsumer nothing;
  EXPECT_MSB_ERROR(ScanData(fd.get(), 7, meter, nothing), ErrorKind::kIO, "cannot read ",
                   "/file: ");
}

}  // namespace
}  // namespace msb::disk
