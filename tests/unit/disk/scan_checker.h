// SPDX-License-Identifier: Apache-2.0
//
// Consumers for the tests of scans, which check what they receive.

#ifndef MSB_TESTS_UNIT_DISK_SCAN_CHECKER_H_
#define MSB_TESTS_UNIT_DISK_SCAN_CHECKER_H_

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
#include "src/disk/scan.h"
#include "tests/support/support.h"

namespace msb::disk {

namespace fs = std::filesystem;
using test::MakeSparseFile;
using test::Noise;
using test::TempDir;

using Extents = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
using Data = std::vector<std::pair<std::uint64_t, std::string>>;

// Makes a file with data in each of this many regions.
inline void MakeRegions(const fs::path& path, std::uint64_t count) {
  Data data;
  for (std::uint64_t n = 0; n < count; ++n) data.emplace_back(n * kRegionBytes, Noise(4096, 1));
  MakeSparseFile(path, count * kRegionBytes, data);
}

inline void Scan(const Context& ctx, const fs::path& path, std::uint64_t size,
                 RegionConsumer& consumer) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  base::ProgressMeter meter(ctx, "scan", 0);
  ScanData(fd.get(), size, meter, consumer);
  meter.Finish();
}

// Joins adjacent extents. Fails if a byte is in two of them.
inline Extents Join(Extents pieces) {
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

// Compares the regions with content that was read in another way.
class Checker : public RegionConsumer {
 public:
  explicit Checker(std::string content) : content_(std::move(content)) {}

  void Process(const Region& region) override {
    // The contract allows consumers to overwrite the headroom.
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
      // All blocks that the extent touches: the rest of them reads as zeros.
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
  std::mutex mutex_;  // Guards the two fields below.
  Extents processed_;
  std::vector<std::uint64_t> process_offsets_;
  std::atomic<bool> committing_ = false;
  Extents committed_;
  std::vector<std::uint64_t> offsets_;
};

// Scans the first size bytes. Expects all of their data to be seen once and unchanged.
inline void ExpectGoodScan(const fs::path& path, std::uint64_t size) {
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

// Passes the regions to functions.
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

inline void DoNothing(const Region&) {}

inline std::vector<std::uint64_t> FirstNumbers(std::size_t count) {
  std::vector<std::uint64_t> numbers(count);
  for (std::size_t n = 0; n < count; ++n) numbers[n] = n;
  return numbers;
}
// Waits up to 100 ms for seen(). That gives other workers time to do what they must not do.
inline void LingerUnless(const std::function<bool()>& seen) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
  while (!seen() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
}

inline Extents Pairs(const std::vector<Extent>& extents) {
  Extents pairs;
  for (const Extent& extent : extents) pairs.emplace_back(extent.offset, extent.length);
  return pairs;
}

}  // namespace msb::disk

#endif  // MSB_TESTS_UNIT_DISK_SCAN_CHECKER_H_
