#include "src/disk/scan.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <mutex>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::disk {
namespace {

namespace fs = std::filesystem;
using test::MakeSparseFile;
using test::Noise;
using test::TempDir;

using Extents = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
using Data = std::vector<std::pair<std::uint64_t, std::string>>;

// Data in each of this many regions.
void MakeRegions(const fs::path& path, std::uint64_t count) {
  Data data;
  for (std::uint64_t n = 0; n < count; ++n) data.emplace_back(n * kRegionBytes, Noise(4096, 1));
  MakeSparseFile(path, count * kRegionBytes, data);
}

void Scan(const Context& ctx, const fs::path& path, std::uint64_t size, RegionConsumer& consumer) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  base::ProgressMeter meter(ctx, "scan", 0);
  ScanData(fd.get(), size, meter, consumer);
  meter.Finish();
}

// Joins extents that touch; fails if some byte is in two of them.
Extents Join(Extents pieces) {
  std::sort(pieces.begin(), pieces.end());
  Extents joined;
  for (const auto& [offset, length] : pieces) {
    const std::uint64_t end = joined.empty() ? 0 : joined.back().first + joined.back().second;
    EXPECT_GE(offset, end) << "seen twice";
    if (!joined.empty() && offset == end) {
      joined.back().second += length;
    } else {
      joined.emplace_back(offset, length);
    }
  }
  return joined;
}

// Compares what it is handed with a content read otherwise.
class Checker : public RegionConsumer {
 public:
  explicit Checker(std::string content) : content_(std::move(content)) {}

  void Process(const Region& region) override {
    // Part of the contract: it does no harm.
    std::memset(region.bytes.data() - kRegionHeadroom, 0xaa, kRegionHeadroom);
    Check(region);
    const std::lock_guard lock(mutex_);
    Add(region, processed_);
    process_offsets_.push_back(region.offset);
  }

  void Commit(const Region& region) override {
    EXPECT_FALSE(committing_.exchange(true)) << "two at a time";
    Check(region);
    {
      const std::lock_guard lock(mutex_);
      EXPECT_EQ(std::count(process_offsets_.begin(), process_offsets_.end(), region.offset), 1);
    }
    EXPECT_TRUE(offsets_.empty() || offsets_.back() < region.offset) << "out of order";
    offsets_.push_back(region.offset);
    Add(region, committed_);
    committing_ = false;
  }

  Extents processed() const { return Join(processed_); }
  Extents committed() const { return Join(committed_); }

 private:
  void Check(const Region& region) const {
    EXPECT_EQ(region.offset % kRegionBytes, 0U);
    EXPECT_EQ(region.bytes.size(),
              std::min<std::uint64_t>(kRegionBytes, content_.size() - region.offset));
    EXPECT_FALSE(region.data.empty());
    for (const Extent& extent : region.data) {
      EXPECT_GE(extent.offset, region.offset);
      EXPECT_LE(extent.end(), region.offset + region.bytes.size());
      // The whole blocks that it touches: what is no data in them reads as zeros.
      const std::uint64_t start = extent.offset / kBlockBytes * kBlockBytes;
      const std::uint64_t end = std::min<std::uint64_t>(
          (extent.end() + kBlockBytes - 1) / kBlockBytes * kBlockBytes, content_.size());
      EXPECT_EQ(std::memcmp(region.bytes.data() + (start - region.offset), content_.data() + start,
                            end - start),
                0)
          << start << " to " << end;
    }
  }

  static void Add(const Region& region, Extents& extents) {
    for (const Extent& extent : region.data) extents.emplace_back(extent.offset, extent.length);
  }

  const std::string content_;
  std::mutex mutex_;  // Guards the two below.
  Extents processed_;
  std::vector<std::uint64_t> process_offsets_;
  std::atomic<bool> committing_ = false;
  Extents committed_;
  std::vector<std::uint64_t> offsets_;
};

// Scans the first size bytes and expects all data in them to be seen once and as it is.
void ExpectGoodScan(const fs::path& path, std::uint64_t size) {
  Checker checker(test::ReadFile(path).substr(0, size));
  std::uint64_t reported = 0;
  const Context ctx = Context::Background().WithProgress(
      [&](const Progress& progress) { reported = progress.bytes_done; });
  Scan(ctx, path, size, checker);

  Extents expected;
  std::uint64_t data_bytes = 0;
  for (const auto& [offset, length] : test::ExtentsOf(path)) {
    if (offset >= size) break;
    expected.emplace_back(offset, std::min(length, size - offset));
    data_bytes += expected.back().second;
  }
  EXPECT_EQ(checker.processed(), expected);
  EXPECT_EQ(checker.committed(), expected);
  EXPECT_EQ(reported, data_bytes);
}

// Calls functions given to it.
class Caller : public RegionConsumer {
 public:
  using Function = std::function<void(const Region&)>;
  Caller(Function process, Function commit)
      : process_(std::move(process)), commit_(std::move(commit)) {}

  void Process(const Region& region) override { process_(region); }
  void Commit(const Region& region) override {
    commit_(region);
    committed_.push_back(region.offset / kRegionBytes);
  }

  const std::vector<std::uint64_t>& committed() const { return committed_; }

 private:
  Function process_;
  Function commit_;
  std::vector<std::uint64_t> committed_;
};

void DoNothing(const Region&) {}

std::vector<std::uint64_t> FirstNumbers(std::size_t count) {
  std::vector<std::uint64_t> numbers(count);
  for (std::size_t n = 0; n < count; ++n) numbers[n] = n;
  return numbers;
}

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

// Gives other workers the time to do what they should not; they may do what they like meanwhile.
void LingerUnless(const std::function<bool()>& seen) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
  while (!seen() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
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

TEST(ScanTest, PassesOnWhatProcessThrows) {
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

TEST(ScanTest, PassesOnWhatCommitThrows) {
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
  EXPECT_MSB_ERROR(Scan(ctx, dir / "file", 100 * kRegionBytes, consumer), ErrorKind::kCancelled);
  // Each worker may have had one more in hand.
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

Extents Pairs(const std::vector<Extent>& extents) {
  Extents pairs;
  for (const Extent& extent : extents) pairs.emplace_back(extent.offset, extent.length);
  return pairs;
}

TEST(ScanRangesTest, ReadsTheRangesWhateverHolesTheyCover) {
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
    // What is not in a range is no data, and so reads as zeros.
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

TEST(ScanRangesTest, SaysThatAFileIsShorterThanItsRanges) {
  const TempDir dir;
  test::WriteFile(dir / "file", Noise(1000, 1));
  Caller consumer(DoNothing, DoNothing);
  EXPECT_MSB_ERROR(ScanTheRanges(dir / "file", 5000, {{0, 5000}}, consumer), ErrorKind::kIO);
  EXPECT_TRUE(consumer.committed().empty());
}

// Brings a content, the data of one region after the other. Before it writes them it fills the
// room with what is no zeros.
class ContentStream : public RegionStream {
 public:
  // The extents are in order, and none in two regions.
  ContentStream(std::string content, std::vector<Extent> extents)
      : content_(std::move(content)), extents_(std::move(extents)) {}

  bool Next(std::uint64_t& offset, std::vector<Extent>& data, std::span<std::byte> bytes) override {
    EXPECT_FALSE(taking_.exchange(true)) << "two at a time";
    EXPECT_TRUE(data.empty());
    EXPECT_EQ(bytes.size(), std::min<std::uint64_t>(kRegionBytes, content_.size()));
    std::fill(bytes.begin(), bytes.end(), std::byte{0xaa});
    if (next_ < extents_.size()) offset = extents_[next_].offset / kRegionBytes * kRegionBytes;
    for (; next_ < extents_.size() && extents_[next_].offset < offset + kRegionBytes; ++next_) {
      const Extent& extent = extents_[next_];
      std::memcpy(bytes.data() + (extent.offset - offset), content_.data() + extent.offset,
                  extent.length);
      data.push_back(extent);
    }
    taking_ = false;
    return !data.empty();
  }

 private:
  const std::string content_;
  const std::vector<Extent> extents_;
  std::size_t next_ = 0;
  std::atomic<bool> taking_ = false;
};

// A page of noise in every region, and no other data.
ContentStream StreamOfRegions(std::uint64_t count) {
  std::string content(count * kRegionBytes, '\0');
  std::vector<Extent> extents;
  for (std::uint64_t n = 0; n < count; ++n) {
    extents.push_back({n * kRegionBytes, 4096});
    content.replace(n * kRegionBytes, 4096, Noise(4096, static_cast<std::uint32_t>(n)));
  }
  return {std::move(content), std::move(extents)};
}

void ScanTheStream(RegionStream& stream, std::uint64_t size, RegionConsumer& consumer,
                   const Context& ctx = Context::Background()) {
  base::ProgressMeter meter(ctx, "scan", 0);
  ScanStream(stream, size, meter, consumer);
  meter.Finish();
}

TEST(ScanStreamTest, BringsTheDataAmidZeros) {
  const std::uint64_t size = 5 * kRegionBytes + 70'000;
  const std::vector<Extent> extents = {{0, 100},
                                       {8192, 4096},
                                       {kBlockBytes - 512, 1024},
                                       {3 * kBlockBytes + 512, 512},
                                       {kRegionBytes - 512, 512},
                                       {kRegionBytes, 512},
                                       {4 * kRegionBytes, kRegionBytes},
                                       {size - 1, 1}};
  std::string content(size, '\0');
  std::uint64_t bytes = 0;
  for (const Extent& extent : extents) {
    content.replace(extent.offset, extent.length, Noise(extent.length, 1));
    bytes += extent.length;
  }
  ContentStream stream(content, extents);
  Checker checker(content);
  std::uint64_t reported = 0;
  ScanTheStream(stream, size, checker,
                Context::Background().WithProgress(
                    [&](const Progress& progress) { reported = progress.bytes_done; }));
  EXPECT_EQ(checker.processed(), Join(Pairs(extents)));
  EXPECT_EQ(checker.committed(), Join(Pairs(extents)));
  EXPECT_EQ(reported, bytes);
}

TEST(ScanStreamTest, CommitsInOrderHoweverLongTheFirstRegionTakes) {
  ContentStream stream = StreamOfRegions(20);
  std::atomic<int> commits = 0;
  const auto process = [&](const Region& region) {
    if (region.offset == 0) LingerUnless([&] { return commits > 0; });
  };
  Caller consumer(process, [&](const Region&) { ++commits; });
  ScanTheStream(stream, 20 * kRegionBytes, consumer);
  EXPECT_EQ(consumer.committed(), FirstNumbers(20));
}

TEST(ScanStreamTest, AStreamMayBringNothing) {
  const auto fail = [](const Region&) { ADD_FAILURE() << "there is no data"; };
  Caller consumer(fail, fail);
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, 5 * kRegionBytes}) {
    ContentStream stream(std::string(size, '\0'), {});
    EXPECT_NO_THROW(ScanTheStream(stream, size, consumer));
  }
}

// Throws for one region, after those before it.
class FailingStream : public RegionStream {
 public:
  explicit FailingStream(std::uint64_t bad) : bad_(bad) {}

  bool Next(std::uint64_t& offset, std::vector<Extent>& data, std::span<std::byte>) override {
    EXPECT_FALSE(failed_) << "asked again";
    failed_ = next_ == bad_;
    if (failed_) throw std::domain_error("bad stream");
    offset = next_++ * kRegionBytes;
    data.push_back({offset, 1});
    return true;
  }

 private:
  const std::uint64_t bad_;
  std::uint64_t next_ = 0;
  bool failed_ = false;
};

TEST(ScanStreamTest, PassesOnWhatTheStreamThrows) {
  for (const std::uint64_t bad : {0U, 1U, 7U}) {
    FailingStream stream(bad);
    Caller consumer(DoNothing, DoNothing);
    EXPECT_THROW(ScanTheStream(stream, 20 * kRegionBytes, consumer), std::domain_error);
    EXPECT_LE(consumer.committed().size(), bad);
    EXPECT_EQ(consumer.committed(), FirstNumbers(consumer.committed().size()));
  }
}

TEST(ScanStreamTest, PassesOnWhatTheConsumerThrows) {
  const auto fail = [](const Region& region) {
    if (region.offset == 7 * kRegionBytes) throw std::domain_error("bad region");
  };
  ContentStream committed = StreamOfRegions(20);
  Caller commit(DoNothing, fail);
  EXPECT_THROW(ScanTheStream(committed, 20 * kRegionBytes, commit), std::domain_error);
  EXPECT_EQ(commit.committed(), FirstNumbers(7));
  ContentStream processed = StreamOfRegions(20);
  Caller process(fail, DoNothing);
  EXPECT_THROW(ScanTheStream(processed, 20 * kRegionBytes, process), std::domain_error);
  EXPECT_LE(process.committed().size(), 7U);
}

TEST(ScanStreamTest, StopsSoonWhenCancelled) {
  const auto [ctx, cancel] = Context::Background().WithCancel();
  const auto commit = [&cancel = cancel](const Region& region) {
    if (region.offset == 3 * kRegionBytes) cancel();
  };
  FailingStream endless(std::uint64_t{1} << 30);
  Caller consumer(DoNothing, commit);
  EXPECT_MSB_ERROR(ScanTheStream(endless, std::uint64_t{1} << 50, consumer, ctx),
                   ErrorKind::kCancelled);
  EXPECT_GE(consumer.committed().size(), 4U);
  EXPECT_LE(consumer.committed().size(), 4U + 16U);
}

TEST(ScanTest, SaysThatAFileCannotBeRead) {
  const TempDir dir;
  test::WriteFile(dir / "file", "content");
  const base::UniqueFd fd(open((dir / "file").c_str(), O_WRONLY | O_CLOEXEC));
  const Context ctx = Context::Background();
  base::ProgressMeter meter(ctx, "scan", 0);
  RegionConsumer nothing;
  EXPECT_MSB_ERROR(ScanData(fd.get(), 7, meter, nothing), ErrorKind::kIO);
}

}  // namespace
}  // namespace msb::disk
