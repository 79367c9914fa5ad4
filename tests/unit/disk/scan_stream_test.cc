// SPDX-License-Identifier: Apache-2.0

#include <condition_variable>
#include <stdexcept>

#include "tests/unit/disk/scan_checker.h"

namespace msb::disk {
namespace {

// Delivers content: the data of one region after the other. Fills the buffer with non-zero bytes
// before it writes the data.
class ContentStream : public RegionStream {
 public:
  // The extents must be in order, and none may be in two regions.
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

// Returns a stream with 4 KiB of noise in each region, and no other data.
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

// Throws for one region, after it has delivered those before it.
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

TEST(ScanStreamTest, PassesOnExceptionsOfTheStream) {
  for (const std::uint64_t bad : {0U, 1U, 7U}) {
    FailingStream stream(bad);
    Caller consumer(DoNothing, DoNothing);
    EXPECT_THROW(ScanTheStream(stream, 20 * kRegionBytes, consumer), std::domain_error);
    EXPECT_LE(consumer.committed().size(), bad);
    EXPECT_EQ(consumer.committed(), FirstNumbers(consumer.committed().size()));
  }
}

TEST(ScanStreamTest, PassesOnExceptionsOfTheConsumer) {
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
                   ErrorKind::kCancelled, "cancelled");
  EXPECT_GE(consumer.committed().size(), 4U);
  EXPECT_LE(consumer.committed().size(), 4U + 16U);
}

// Delivers one region, and then nothing until it is stopped.
class StalledStream : public RegionStream {
 public:
  bool Next(std::uint64_t& offset, std::vector<Extent>& data, std::span<std::byte>) override {
    std::unique_lock lock(mutex_);
    if (!brought_) {
      brought_ = true;
      offset = 0;
      data = {{0, 1}};
      return true;
    }
    stopped_changed_.wait(lock, [this] { return stopped_; });
    throw std::runtime_error("stopped");
  }
  void Stop() override {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    stopped_changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable stopped_changed_;
  bool brought_ = false;
  bool stopped_ = false;
};

// For example, a disk may be full while a pipe delivers nothing more.
TEST(ScanStreamTest, StopsAStreamThatStallsWhenTheConsumerFails) {
  class FullDisk : public RegionConsumer {
    void Commit(const Region& /*region*/) override { throw std::length_error("full"); }
  } disk;
  StalledStream stream;
  EXPECT_THROW(ScanTheStream(stream, 2 * kRegionBytes, disk), std::length_error);
}

}  // namespace
}  // namespace msb::disk
