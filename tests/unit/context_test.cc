// SPDX-License-Identifier: Apache-2.0

#include "msb/context.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ratio>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/support.h"

namespace msb {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::steady_clock;
using std::chrono::system_clock;

std::string MessageOf(const Context& ctx) {
  try {
    ctx.Check();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(ContextTest, TheBackgroundNeverEnds) {
  const Context ctx = Context::Background();
  EXPECT_FALSE(ctx.Done());
  EXPECT_NO_THROW(ctx.Check());
  EXPECT_EQ(ctx.TimeLeft(), std::nullopt);
  EXPECT_FALSE(ctx.progress());
}

TEST(ContextTest, EndsWhenTheTimeIsUp) {
  const auto start = steady_clock::now();
  const Context ctx = Context::Background().WithTimeout(milliseconds(10));
  while (!ctx.Done()) std::this_thread::yield();
  EXPECT_TRUE(ctx.Done());
  EXPECT_GE(steady_clock::now() - start, milliseconds(10));
  EXPECT_MSB_ERROR(ctx.Check(), ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_NE(MessageOf(ctx).find("deadline"), std::string::npos);
  EXPECT_EQ(ctx.TimeLeft(), nanoseconds(0));
}

TEST(ContextTest, ReturnsTheTimeLeft) {
  const Context ctx = Context::Background().WithTimeout(hours(1));
  EXPECT_FALSE(ctx.Done());
  EXPECT_NO_THROW(ctx.Check());
  ASSERT_TRUE(ctx.TimeLeft());
  EXPECT_LE(*ctx.TimeLeft(), hours(1));
  EXPECT_GT(*ctx.TimeLeft(), minutes(50));
}

TEST(ContextTest, HonoursADeadline) {
  const Context ctx = Context::Background().WithDeadline(system_clock::now() + hours(1));
  EXPECT_FALSE(ctx.Done());
  EXPECT_LE(*ctx.TimeLeft(), hours(1));
  EXPECT_GT(*ctx.TimeLeft(), minutes(50));
  const Context late = Context::Background().WithDeadline(system_clock::now() - hours(1));
  EXPECT_MSB_ERROR(late.Check(), ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_EQ(late.TimeLeft(), nanoseconds(0));
}

TEST(ContextTest, TheEarlierOfTwoDeadlinesCounts) {
  const Context short_first = Context::Background().WithTimeout(minutes(1)).WithTimeout(hours(1));
  const Context short_last = Context::Background().WithTimeout(hours(1)).WithTimeout(minutes(1));
  const Context mixed =
      Context::Background().WithDeadline(system_clock::now() + minutes(1)).WithTimeout(hours(1));
  EXPECT_LE(*short_first.TimeLeft(), minutes(1));
  EXPECT_LE(*short_last.TimeLeft(), minutes(1));
  EXPECT_LE(*mixed.TimeLeft(), minutes(1));
  EXPECT_TRUE(Context::Background().WithTimeout(nanoseconds(0)).WithTimeout(hours(1)).Done());
}

TEST(ContextTest, TakesATimeOutOfForever) {
  const Context timeout = Context::Background().WithTimeout(nanoseconds::max());
  const Context deadline = Context::Background().WithDeadline(system_clock::time_point::max());
  for (const Context& ctx : {timeout, deadline, timeout.WithTimeout(nanoseconds::max())}) {
    EXPECT_FALSE(ctx.Done());
    EXPECT_GT(*ctx.TimeLeft(), hours(24 * 365));
  }
  EXPECT_LE(*timeout.WithTimeout(minutes(1)).TimeLeft(), minutes(1));
}

TEST(ContextTest, TakesATimeOutThatIsLongPast) {
  const Context timeout = Context::Background().WithTimeout(nanoseconds::min());
  const Context deadline = Context::Background().WithDeadline(system_clock::time_point::min());
  for (const Context& ctx :
       {timeout, deadline, Context::Background().WithTimeout(nanoseconds(-1))}) {
    EXPECT_TRUE(ctx.Done());
    EXPECT_EQ(ctx.TimeLeft(), nanoseconds(0));
  }
}

TEST(ContextTest, EndsWhenItsCancelFunctionIsCalled) {
  const auto [ctx, cancel] = Context::Background().WithCancel();
  EXPECT_FALSE(ctx.Done());
  cancel();
  EXPECT_TRUE(ctx.Done());
  EXPECT_MSB_ERROR(ctx.Check(), ErrorKind::kCancelled, "cancelled");
  EXPECT_EQ(MessageOf(ctx).find("deadline"), std::string::npos);
  EXPECT_EQ(ctx.TimeLeft(), std::nullopt);
  EXPECT_NO_THROW(cancel());
  EXPECT_TRUE(ctx.Done());
}

TEST(ContextTest, MayBeCancelledByManyThreads) {
  const auto [ctx, cancel] = Context::Background().WithCancel();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([&cancel = cancel] { cancel(); });
  }
  EXPECT_TRUE(ctx.Done());
}

TEST(ContextTest, EndsWhenItsTokenIsStopped) {
  std::stop_source source;
  const Context ctx = Context::Background().WithCancel(source.get_token());
  EXPECT_FALSE(ctx.Done());
  source.request_stop();
  EXPECT_TRUE(ctx.Done());
  EXPECT_MSB_ERROR(ctx.Check(), ErrorKind::kCancelled, "cancelled");
  EXPECT_FALSE(Context::Background().WithCancel(std::stop_token()).Done());
}

TEST(ContextTest, AnyOfSeveralMayCancel) {
  std::stop_source first;
  std::stop_source second;
  const Context one =
      Context::Background().WithCancel(first.get_token()).WithCancel(std::stop_token());
  const Context both = one.WithCancel(second.get_token());
  second.request_stop();
  EXPECT_TRUE(both.Done());
  EXPECT_FALSE(one.Done());
  first.request_stop();
  EXPECT_TRUE(one.Done());
}

TEST(ContextTest, CancelsItsChildrenAndNotItsParent) {
  const Context parent = Context::Background();
  const auto [ctx, cancel] = parent.WithCancel();
  const Context timed = ctx.WithTimeout(hours(1));
  const Context watched = ctx.WithProgress([](const Progress&) {});
  const auto [child, cancel_child] = ctx.WithCancel();
  cancel_child();
  EXPECT_TRUE(child.Done());
  EXPECT_FALSE(ctx.Done());
  cancel();
  EXPECT_TRUE(timed.Done());
  EXPECT_TRUE(watched.Done());
  EXPECT_TRUE(ctx.WithTimeout(hours(1)).Done());  // Created after the cancellation.
  EXPECT_FALSE(parent.Done());
}

TEST(ContextTest, AChildsDeadlineIsNotItsParents) {
  const Context parent = Context::Background().WithTimeout(hours(1));
  EXPECT_TRUE(parent.WithTimeout(nanoseconds(0)).Done());
  EXPECT_FALSE(parent.Done());
}

TEST(ContextTest, ReturnsTheLastProgressFunction) {
  std::vector<int> called;
  const Context first =
      Context::Background().WithProgress([&](const Progress&) { called.push_back(1); });
  const Context second = first.WithProgress([&](const Progress&) { called.push_back(2); });
  second.WithTimeout(hours(1)).progress()({});
  first.WithCancel().first.progress()({});
  EXPECT_EQ(called, (std::vector<int>{2, 1}));
}

TEST(ContextTest, TimeOutsThatCannotBeCountedNeverCome) {
  using Days400Years = std::chrono::duration<int, std::ratio<86400>>;
  const Context background = Context::Background();
  for (const Context& ctx :
       {background.WithTimeout(hours::max()), background.WithTimeout(std::chrono::seconds::max()),
        background.WithTimeout(hours(24 * 365 * 400)), background.WithTimeout(Days400Years(146100)),
        background.WithTimeout(std::chrono::duration<double>(1e300)),
        background.WithTimeout(
            std::chrono::duration<float>(std::numeric_limits<float>::infinity())),
        background.WithTimeout(std::chrono::duration<std::uint64_t, std::milli>(~0ULL))}) {
    EXPECT_FALSE(ctx.Done());
    EXPECT_NO_THROW(ctx.Check());
    EXPECT_GT(*ctx.TimeLeft(), hours(24 * 365));
  }
}

TEST(ContextTest, TimeOutsBelowAllNumbersAreOver) {
  const Context background = Context::Background();
  for (const Context& ctx :
       {background.WithTimeout(hours::min()), background.WithTimeout(std::chrono::seconds::min()),
        background.WithTimeout(std::chrono::seconds(0)), background.WithTimeout(hours(-1)),
        background.WithTimeout(std::chrono::duration<double>(-1e300)),
        background.WithTimeout(std::chrono::duration<double>(std::nan("")))}) {
    EXPECT_TRUE(ctx.Done());
    EXPECT_EQ(ctx.TimeLeft(), nanoseconds(0));
  }
}

TEST(ContextTest, TakesTimeOutsOfAnyUnit) {
  using namespace std::chrono_literals;
  const Context background = Context::Background();
  for (const Context& ctx :
       {background.WithTimeout(5min), background.WithTimeout(std::chrono::duration<float>(300.F)),
        background.WithTimeout(nanoseconds{300'000'000'000}),
        background.WithTimeout(std::chrono::duration<std::int64_t, std::pico>(300s))}) {
    EXPECT_LE(*ctx.TimeLeft(), 5min);
    EXPECT_GT(*ctx.TimeLeft(), 4min);
  }
  EXPECT_TRUE(background.WithTimeout({}).Done());
}

TEST(ContextTest, TakesDeadlinesOfAnyClockAndUnit) {
  const Context background = Context::Background();
  using Days = std::chrono::duration<int, std::ratio<86400>>;
  const auto far = std::chrono::time_point<system_clock, Days>(Days(2'000'000));
  const Context soon = background.WithDeadline(steady_clock::now() + minutes(5));
  EXPECT_LE(*soon.TimeLeft(), minutes(5));
  EXPECT_GT(*soon.TimeLeft(), minutes(4));
  for (const Context& ctx :
       {background.WithDeadline(far), background.WithDeadline(steady_clock::time_point::max()),
        background.WithDeadline(std::chrono::time_point<system_clock, hours>::max())}) {
    EXPECT_FALSE(ctx.Done());
    EXPECT_GT(*ctx.TimeLeft(), hours(24 * 365));
  }
  EXPECT_TRUE(background.WithDeadline(steady_clock::time_point::min()).Done());
  EXPECT_TRUE(background.WithDeadline(std::chrono::time_point<system_clock, hours>::min()).Done());
}

TEST(ContextTest, StopTimeOutsSaturate) {
  const auto timeout_of = [](const StopOption& option) {
    StopConfig config;
    option(config);
    return std::chrono::milliseconds(config.timeout);
  };
  EXPECT_EQ(timeout_of(WithStopTimeout(hours::max())), milliseconds::max());
  EXPECT_EQ(timeout_of(WithStopTimeout(std::chrono::seconds::max())), milliseconds::max());
  EXPECT_EQ(timeout_of(WithStopTimeout(hours::min())), milliseconds::min());
  EXPECT_EQ(timeout_of(WithStopTimeout(std::chrono::duration<double>(1.5))), milliseconds(1500));
  EXPECT_EQ(timeout_of(WithStopTimeout(nanoseconds(1))), milliseconds(1));
  EXPECT_EQ(timeout_of(WithStopTimeout(milliseconds{300})), milliseconds(300));
}

TEST(ContextTest, DurationsInOptionsSaturate) {
  EXPECT_EQ(StopConfig{.timeout = hours::max()}.timeout, milliseconds::max());
  EXPECT_EQ(StopConfig{.timeout = hours::min()}.timeout, milliseconds::min());
  EXPECT_EQ(StopConfig{.timeout = nanoseconds(1)}.timeout, milliseconds(1));
  EXPECT_EQ(StopConfig{.timeout = {}}.timeout, milliseconds(0));
  EXPECT_EQ(*SnapshotPruneOptions{.older_than = hours::max()}.older_than,
            std::chrono::seconds::max());
  EXPECT_EQ(*SnapshotPruneOptions{.older_than = hours(2)}.older_than, std::chrono::seconds(7200));
}

TEST(ContextTest, ValuesSurviveAMove) {
  Context ctx = Context::Background().WithTimeout(hours(1));
  const Context moved = std::move(ctx);
  // NOLINTNEXTLINE(bugprone-use-after-move): This is what is tested.
  EXPECT_EQ(ctx.TimeLeft().has_value(), moved.TimeLeft().has_value());
  Client client({.home = "/nowhere", .backend = "local"});
  const Client other = std::move(client);
  // NOLINTNEXTLINE(bugprone-use-after-move)
  EXPECT_EQ(client.config().home, other.config().home);
  EXPECT_TRUE(std::is_nothrow_move_constructible_v<SnapshotArtifact>);
}

}  // namespace
}  // namespace msb
