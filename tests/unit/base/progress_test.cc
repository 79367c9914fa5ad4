// SPDX-License-Identifier: Apache-2.0

#include "src/base/progress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/support.h"

namespace msb::base {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

struct Report {
  std::string phase;
  std::uint64_t done;
  std::uint64_t total;
};

Context Recording(std::vector<Report>& reports) {
  return Context::Background().WithProgress([&reports](const Progress& progress) {
    reports.push_back({std::string(progress.phase), progress.bytes_done, progress.bytes_total});
  });
}

// Adds bytes one by one for this long, and at least one after that. Returns how many.
std::uint64_t AddFor(ProgressMeter& meter, milliseconds duration) {
  const auto end = steady_clock::now() + duration;
  std::uint64_t added = 0;
  for (bool last = false; !last;) {
    last = steady_clock::now() >= end;
    meter.Add(1);
    ++added;
  }
  return added;
}

TEST(ProgressTest, ReportsTheEndOfAPhaseHoweverShort) {
  std::vector<Report> reports;
  const Context ctx = Recording(reports);
  ProgressMeter meter(ctx, "copy", 30);
  meter.Add(10);
  meter.Add(20);
  meter.Finish();
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back().phase, "copy");
  EXPECT_EQ(reports.back().done, 30U);
  EXPECT_EQ(reports.back().total, 30U);
}

TEST(ProgressTest, ReportsOnTheWayButNotMoreThan20TimesASecond) {
  std::vector<Report> reports;
  const Context ctx = Recording(reports);
  const auto start = steady_clock::now();
  ProgressMeter meter(ctx, "copy", 0);
  const std::uint64_t added = AddFor(meter, milliseconds(200));
  const auto elapsed = steady_clock::now() - start;
  EXPECT_GE(reports.size(), 1U);
  EXPECT_LE(reports.size() * milliseconds(50), elapsed);
  const std::size_t on_the_way = reports.size();
  meter.Finish();
  EXPECT_EQ(reports.size(), on_the_way + 1);
  EXPECT_EQ(reports.back().done, added);
}

TEST(ProgressTest, NeverDecreasesNorRunsConcurrently) {
  std::atomic<int> running = 0;
  std::vector<std::uint64_t> done;
  const Context ctx = Context::Background().WithProgress([&](const Progress& progress) {
    EXPECT_EQ(running.fetch_add(1), 0);
    done.push_back(progress.bytes_done);
    // So slow that the next report is due before this one returns.
    const auto end = steady_clock::now() + milliseconds(60);
    while (steady_clock::now() < end) std::this_thread::yield();
    running.fetch_sub(1);
  });
  ProgressMeter meter(ctx, "copy", 0);
  std::atomic<std::uint64_t> added = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] { added += AddFor(meter, milliseconds(150)); });
    }
  }
  meter.Finish();
  EXPECT_GE(done.size(), 2U);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.back(), added);
}

TEST(ProgressTest, NeverReportsMoreDoneThanThereIs) {
  std::vector<Report> reports;
  const Context ctx = Recording(reports);
  ProgressMeter meter(ctx, "copy", 10);
  meter.Add(25);  // The file has grown since it was measured.
  meter.Finish();
  ASSERT_EQ(reports.size(), 1U);
  EXPECT_EQ(reports[0].done, 25U);
  EXPECT_EQ(reports[0].total, 25U);
}

TEST(ProgressTest, PassesOnExceptionsOfTheFunction) {
  const Context ctx = Context::Background().WithProgress(
      [](const Progress&) { throw std::domain_error("enough"); });
  ProgressMeter meter(ctx, "copy", 0);
  EXPECT_THROW(AddFor(meter, milliseconds(60)), std::domain_error);
  EXPECT_THROW(meter.Finish(), std::domain_error);
}

TEST(ProgressTest, StopsWhenCancelledOrLate) {
  const auto [ctx, cancel] = Context::Background().WithCancel();
  ProgressMeter meter(ctx, "copy", 10);
  EXPECT_NO_THROW(meter.Add(1));
  cancel();
  EXPECT_MSB_ERROR(meter.Add(1), ErrorKind::kCancelled, "cancelled");

  const Context late = Context::Background().WithTimeout(milliseconds(0));
  ProgressMeter late_meter(late, "copy", 10);
  EXPECT_MSB_ERROR(late_meter.Add(1), ErrorKind::kCancelled, "deadline exceeded");
}

TEST(ProgressTest, KnowsWhetherAnybodyListens) {
  std::vector<Report> reports;
  EXPECT_TRUE(ProgressMeter::Wanted(Recording(reports)));
  const Context silent = Context::Background();
  EXPECT_FALSE(ProgressMeter::Wanted(silent));
  ProgressMeter meter(silent, "copy", 0);
  EXPECT_NO_THROW(AddFor(meter, milliseconds(60)));
  EXPECT_NO_THROW(meter.Finish());
}

}  // namespace
}  // namespace msb::base
