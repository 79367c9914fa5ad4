// SPDX-License-Identifier: Apache-2.0

#include "src/registry/throttle.h"

#include <gtest/gtest.h>

namespace msb::registry {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class ThrottleTest : public testing::Test {
 protected:
  // Returns how many requests may be made at the same time after the pause.
  unsigned Allowed() const {
    unsigned count = 0;
    while (throttle_.Allows(count, throttle_.resume())) ++count;
    return count;
  }
  // Refuses a request when the previous pause is over, and returns the length of the new one.
  milliseconds Refuse(std::optional<milliseconds> requested = {}) {
    now_ = std::max(now_, throttle_.resume());
    throttle_.OnSend();
    throttle_.OnRefusal(requested, now_);
    return std::chrono::ceil<milliseconds>(throttle_.resume() - now_);
  }

  std::minstd_rand random_{1};
  Throttle throttle_{8, random_};
  Throttle::Time now_ = Throttle::Time(seconds(1000));
};

TEST_F(ThrottleTest, AllowsAllConnectionsAtFirst) {
  EXPECT_TRUE(throttle_.Allows(7, now_));
  EXPECT_FALSE(throttle_.Allows(8, now_));
}

TEST_F(ThrottleTest, ARefusalPausesAllRequests) {
  const milliseconds pause = Refuse();
  EXPECT_GE(pause, milliseconds(375));
  EXPECT_LE(pause, milliseconds(625));
  EXPECT_FALSE(throttle_.Allows(0, now_ + pause - milliseconds(2)));
  EXPECT_TRUE(throttle_.Allows(0, now_ + pause));
}

TEST_F(ThrottleTest, PausesAtLeastForTheRequestedTimeAndTheBackOff) {
  EXPECT_GE(Refuse(milliseconds(0)), milliseconds(375));
  const milliseconds pause = Refuse(seconds(100));
  EXPECT_GE(pause, seconds(100));
  EXPECT_LE(pause, seconds(101));
}

TEST_F(ThrottleTest, PausesGrowAndConnectionsHalveWhileRefusalsContinue) {
  const unsigned allowed[] = {4, 2, 1, 1};
  milliseconds longest(0);
  for (const unsigned expected : allowed) {
    const milliseconds pause = Refuse();
    EXPECT_GT(pause, longest);
    longest = pause;
    EXPECT_EQ(Allowed(), expected);
  }
  for (int i = 0; i < 100; ++i) EXPECT_LE(Refuse(), milliseconds(37500));
}

TEST_F(ThrottleTest, RequestsThatWereSentBeforeThePauseCountOnce) {
  Refuse();
  const auto resume = throttle_.resume();
  for (int i = 0; i < 7; ++i) throttle_.OnRefusal(milliseconds(0), now_);
  EXPECT_EQ(throttle_.resume(), resume);
  EXPECT_EQ(Allowed(), 4U);
  throttle_.OnRefusal(seconds(20), now_);
  EXPECT_GE(throttle_.resume(), now_ + seconds(20));
}

// A proxy may read the bodies of all uploads before it refuses them one after another.
TEST_F(ThrottleTest, RefusalsAfterThePauseDoNotCountIfNothingWasSent) {
  Refuse();
  for (int i = 0; i < 7; ++i) {
    now_ = throttle_.resume() + seconds(1);
    throttle_.OnRefusal({}, now_);
  }
  EXPECT_EQ(throttle_.vain_pauses(), 1);
  EXPECT_EQ(Allowed(), 4U);
}

TEST_F(ThrottleTest, CountsThePausesWithoutProgress) {
  for (int i = 1; i <= 3; ++i) {
    Refuse();
    throttle_.OnRefusal({}, now_);  // Belongs to the same pause.
    EXPECT_EQ(throttle_.vain_pauses(), i);
  }
  throttle_.OnAnswer();
  EXPECT_EQ(throttle_.vain_pauses(), 0);
}

TEST_F(ThrottleTest, RecoversSlowly) {
  for (int i = 0; i < 3; ++i) Refuse();
  throttle_.OnAnswer();
  EXPECT_EQ(Allowed(), 1U);
  for (int i = 0; i < 200; ++i) throttle_.OnAnswer();
  EXPECT_EQ(Allowed(), 8U);
  EXPECT_LE(Refuse(), milliseconds(625));
}

}  // namespace
}  // namespace msb::registry
