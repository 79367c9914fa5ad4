// SPDX-License-Identifier: Apache-2.0

#include "src/disk/sparse_copy.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "tests/support/missing_calls.h"
#include "tests/support/support.h"

namespace msb::disk {
namespace {

namespace fs = std::filesystem;
using test::kExtentUnit;
using test::MakeSparseFile;
using test::Noise;
using test::TempDir;

using Data = std::vector<std::pair<std::uint64_t, std::string>>;

// A source and an empty target, both open.
struct Files {
  explicit Files(const TempDir& dir)
      : source(open((dir / "source").c_str(), O_RDONLY | O_CLOEXEC)),
        target(open((dir / "target").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) {}

  base::UniqueFd source;
  base::UniqueFd target;
};

void ExpectSameFiles(const TempDir& dir) {
  EXPECT_EQ(fs::file_size(dir / "target"), fs::file_size(dir / "source"));
  // Not EXPECT_EQ, which would print the difference of two files of some megabytes.
  EXPECT_TRUE(test::ReadFile(dir / "target") == test::ReadFile(dir / "source"));
  EXPECT_EQ(test::ExtentsOf(dir / "target"), test::ExtentsOf(dir / "source"));
}

// Assembles the regions that it receives, in order.
class Collector : public RegionConsumer {
 public:
  explicit Collector(std::uint64_t size) : content(size, '\0') {}

  void Commit(const Region& region) override {
    for (const Extent& extent : region.data) {
      const auto* bytes = reinterpret_cast<const char*>(region.bytes.data());
      content.replace(extent.offset, extent.length, bytes + (extent.offset - region.offset),
                      extent.length);
    }
  }

  std::string content;
};

// Copies the source in each of the ways and compares.
void ExpectGoodCopies(const TempDir& dir) {
  const Context ctx = Context::Background();
  const std::uint64_t size = fs::file_size(dir / "source");
  {
    const Files files(dir);
    CopySparse(ctx, files.source.get(), files.target.get(), size);
    ExpectSameFiles(dir);
  }
  {
    const Files files(dir);
    Collector collector(size);
    CopySparse(ctx, files.source.get(), files.target.get(), size, collector);
    ExpectSameFiles(dir);
    EXPECT_TRUE(collector.content == test::ReadFile(dir / "source"));
  }
  {
    const Files files(dir);
    base::Resize(files.target.get(), size);
    base::ProgressMeter meter(ctx, "copy", 0);
    EXPECT_EQ(CopyInKernel(files.source.get(), files.target.get(), size, meter), size);
    base::Sync(files.target.get());
    ExpectSameFiles(dir);
  }
}

TEST(SparseCopyTest, CopiesFilesOfEverySize) {
  const TempDir dir;
  for (const std::uint64_t size :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4095}, kBlockBytes - 1, kBlockBytes,
        kBlockBytes + 1, kRegionBytes - 1, kRegionBytes, kRegionBytes + 1}) {
    SCOPED_TRACE(size);
    test::WriteFile(dir / "source", Noise(size, 1));
    ExpectGoodCopies(dir);
    MakeSparseFile(dir / "source", size, {});
    ExpectGoodCopies(dir);
  }
}

TEST(SparseCopyTest, KeepsTheHoles) {
  const TempDir dir;
  MakeSparseFile(dir / "source", 300 * kExtentUnit + 1,
                 {{3 * kExtentUnit, Noise(2 * kExtentUnit, 1)},
                  {200 * kExtentUnit, Noise(60 * kExtentUnit, 2)}});
  ExpectGoodCopies(dir);
  EXPECT_EQ(test::ExtentsOf(dir / "target").size(), 2U);
}

TEST(SparseCopyTest, CopiesManyLayouts) {
  const TempDir dir;
  std::mt19937 random(11);
  const auto below = [&](std::uint64_t limit) { return random() % limit; };
  for (int round = 0; round < 15; ++round) {
    SCOPED_TRACE(round);
    const std::uint64_t size = 1 + below(3 * kRegionBytes);
    Data data;
    for (std::uint64_t n = below(10); n > 0; --n) {
      const std::uint64_t offset = below(size);
      const std::uint64_t length = std::min(1 + below(200'000), size - offset);
      data.emplace_back(offset, Noise(length, static_cast<std::uint32_t>(n)));
    }
    MakeSparseFile(dir / "source", size, data);
    ExpectGoodCopies(dir);
  }
}

TEST(SparseCopyTest, CopiesALargeHoleAtOnce) {
  const TempDir dir;
  const std::uint64_t size = std::uint64_t{500} << 30;
  MakeSparseFile(dir / "source", size, {{size / 2, Noise(kExtentUnit, 1)}});
  const Files files(dir);
  CopySparse(Context::Background(), files.source.get(), files.target.get(), size);
  EXPECT_EQ(fs::file_size(dir / "target"), size);
  EXPECT_EQ(test::ExtentsOf(dir / "target"), test::ExtentsOf(dir / "source"));
}

TEST(SparseCopyTest, CopiesNoMoreThanTheSizeGiven) {
  const TempDir dir;
  test::WriteFile(dir / "source", Noise(3 * kExtentUnit, 1));
  const std::string start = test::ReadFile(dir / "source").substr(0, kExtentUnit + 10);
  const Context ctx = Context::Background();
  {
    const Files files(dir);
    CopySparse(ctx, files.source.get(), files.target.get(), start.size());
    EXPECT_TRUE(test::ReadFile(dir / "target") == start);
  }
  {
    const Files files(dir);
    Collector collector(start.size());
    CopySparse(ctx, files.source.get(), files.target.get(), start.size(), collector);
    EXPECT_TRUE(test::ReadFile(dir / "target") == start);
    EXPECT_TRUE(collector.content == start);
  }
}

TEST(SparseCopyTest, ReportsTheBytesOfDataWithoutTheHoles) {
  const TempDir dir;
  const std::uint64_t size = 100 * kExtentUnit;
  MakeSparseFile(
      dir / "source", size,
      {{kExtentUnit, Noise(2 * kExtentUnit, 1)}, {90 * kExtentUnit, Noise(kExtentUnit, 2)}});
  std::optional<Progress> last;
  std::string phase;
  const Context ctx = Context::Background().WithProgress([&](const Progress& progress) {
    phase = progress.phase;
    last = progress;
  });
  RegionConsumer nothing;
  for (const bool with_consumer : {false, true}) {
    last.reset();
    const Files files(dir);
    if (with_consumer) {
      CopySparse(ctx, files.source.get(), files.target.get(), size, nothing);
    } else {
      CopySparse(ctx, files.source.get(), files.target.get(), size);
    }
    ASSERT_TRUE(last);
    EXPECT_EQ(phase, "copy");
    EXPECT_EQ(last->bytes_total, 3 * kExtentUnit);
    EXPECT_EQ(last->bytes_done, 3 * kExtentUnit);
  }
}

TEST(SparseCopyTest, ReportsTheBytesThatTheKernelCopied) {
  const TempDir dir;
  MakeSparseFile(dir / "source", 10 * kExtentUnit, {{kExtentUnit, Noise(2 * kExtentUnit, 1)}});
  std::uint64_t done = 0;
  const Context ctx = Context::Background().WithProgress(
      [&](const Progress& progress) { done = progress.bytes_done; });
  const Files files(dir);
  base::ProgressMeter meter(ctx, "copy", 0);
  EXPECT_EQ(CopyInKernel(files.source.get(), files.target.get(), 10 * kExtentUnit, meter),
            10 * kExtentUnit);
  meter.Finish();
  EXPECT_EQ(done, 2 * kExtentUnit);
}

TEST(SparseCopyTest, DoesNotCopyWhenCancelledOrLate) {
  const TempDir dir;
  test::WriteFile(dir / "source", Noise(kExtentUnit, 1));
  const Files files(dir);
  const int source = files.source.get();
  const int target = files.target.get();
  const auto [cancelled, cancel] = Context::Background().WithCancel();
  cancel();
  const Context late = Context::Background().WithTimeout(std::chrono::nanoseconds(0));
  RegionConsumer nothing;
  for (const auto& [ctx, reason] :
       {std::pair(cancelled, "cancelled"), std::pair(late, "deadline exceeded")}) {
    EXPECT_MSB_ERROR(CopySparse(ctx, source, target, kExtentUnit), ErrorKind::kCancelled, reason);
    EXPECT_MSB_ERROR(CopySparse(ctx, source, target, kExtentUnit, nothing), ErrorKind::kCancelled,
                     reason);
    EXPECT_EQ(fs::file_size(dir / "target"), 0U);
    base::ProgressMeter meter(ctx, "copy", 0);
    EXPECT_MSB_ERROR(CopyInKernel(source, target, kExtentUnit, meter), ErrorKind::kCancelled,
                     reason);
    base::Resize(target, 0);
  }
}

// Calls a function for each region.
class Caller : public RegionConsumer {
 public:
  explicit Caller(std::function<void()> function) : function_(std::move(function)) {}
  void Commit(const Region& /*region*/) override { function_(); }

 private:
  std::function<void()> function_;
};

TEST(SparseCopyTest, StopsHalfWayWhenCancelled) {
  const TempDir dir;
  test::WriteFile(dir / "source", Noise(4 * kRegionBytes, 1));
  const Files files(dir);
  const auto [ctx, cancel] = Context::Background().WithCancel();
  Caller consumer(cancel);
  EXPECT_MSB_ERROR(
      CopySparse(ctx, files.source.get(), files.target.get(), 4 * kRegionBytes, consumer),
      ErrorKind::kCancelled, "cancelled");
}

TEST(SparseCopyTest, PassesOnExceptionsOfTheConsumer) {
  const TempDir dir;
  test::WriteFile(dir / "source", Noise(4 * kRegionBytes, 1));
  const Files files(dir);
  Caller consumer([] { throw std::domain_error("enough"); });
  EXPECT_THROW(CopySparse(Context::Background(), files.source.get(), files.target.get(),
                          4 * kRegionBytes, consumer),
               std::domain_error);
}

TEST(SparseCopyTest, PassesOnExceptionsOfTheProgressFunction) {
  const TempDir dir;
  test::WriteFile(dir / "source", Noise(kExtentUnit, 1));
  const Files files(dir);
  const Context ctx = Context::Background().WithProgress(
      [](const Progress&) { throw std::domain_error("enough"); });
  EXPECT_THROW(CopySparse(ctx, files.source.get(), files.target.get(), kExtentUnit),
               std::domain_error);
}

TEST(SparseCopyTest, ReportsAnUnwritableTarget) {
  const TempDir dir;
  test::WriteFile(dir / "source", Noise(kExtentUnit, 1));
  const Files files(dir);
  const base::UniqueFd read_only(open((dir / "target").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_MSB_ERROR(
      CopySparse(Context::Background(), files.source.get(), read_only.get(), kExtentUnit),
      ErrorKind::kIO, "cannot resize ", "/target: ");
}

TEST(SparseCopyTest, CopiesNothingInTheKernelWhereItCannot) {
  const TempDir dir;
  const base::UniqueFd source(open("/proc/self/status", O_RDONLY | O_CLOEXEC));
  test::WriteFile(dir / "source", "");
  const Files files(dir);
  const Context ctx = Context::Background();
  base::ProgressMeter meter(ctx, "copy", 0);
  EXPECT_EQ(CopyInKernel(source.get(), files.target.get(), 100, meter), 0U);
  EXPECT_EQ(fs::file_size(dir / "target"), 0U);
}

TEST(SparseCopyTest, ReadsAndWritesWhereTheKernelStopsCopying) {
  for (const int error : {EXDEV, EINVAL, EOPNOTSUPP, ENOSYS, ETXTBSY, EIO}) {
    const TempDir dir;
    MakeSparseFile(dir / "source", 40 * kExtentUnit,
                   {{0, Noise(kExtentUnit, 1)},
                    {8 * kExtentUnit, Noise(2 * kExtentUnit, 2)},
                    {30 * kExtentUnit, "end"}});
    Files files(dir);
    base::Resize(files.target.get(), 40 * kExtentUnit);
    int calls = 0;
    const auto decide = [&](const test::InterceptedCall&) { return ++calls == 1 ? 0 : error; };
    const auto run = test::RunIntercepted({SYS_copy_file_range}, decide, [&](const auto& begin) {
      begin();
      const Context ctx = Context::Background();
      base::ProgressMeter meter(ctx, "copy", 0);
      const int source = files.source.get();
      const int target = files.target.get();
      const auto copied = CopyInKernel(source, target, 40 * kExtentUnit, meter);
      RegionConsumer nothing;
      RegionWriter writer(target, nothing);
      ScanData(source, 40 * kExtentUnit, meter, writer, copied);
      return std::to_string(copied / kExtentUnit);
    });
    EXPECT_EQ(run.report, "8");
    ExpectSameFiles(dir);
  }
}

TEST(SparseCopyTest, CopiesWhereBlocksCannotBeShared) {
  for (const int error : {EXDEV, EINVAL, EOPNOTSUPP, ENOSYS, ETXTBSY, EIO}) {
    const TempDir dir;
    MakeSparseFile(dir / "source", 10 * kExtentUnit, {{kExtentUnit, Noise(kExtentUnit, 1)}});
    Files files(dir);
    EXPECT_EQ(test::RunWithout({test::NoClone(error)},
                               [&] {
                                 CopySparse(Context::Background(), files.source.get(),
                                            files.target.get(), 10 * kExtentUnit);
                                 return std::string("ok");
                               }),
              "ok");
    ExpectSameFiles(dir);
  }
}

}  // namespace
}  // namespace msb::disk
