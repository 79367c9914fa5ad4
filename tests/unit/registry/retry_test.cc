// SPDX-License-Identifier: Apache-2.0

#include "src/registry/retry.h"

#include <gtest/gtest.h>

namespace msb::registry {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// The time of the example in RFC 9110: Sun, 06 Nov 1994 08:49:37 GMT.
constexpr std::chrono::sys_seconds kNow{seconds(784111777)};

TEST(RetryTest, KnowsWhichFailuresMayGoAway) {
  for (const int status : {408, 429, 500, 502, 503, 504, 599}) {
    HttpResponse response;
    response.status = status;
    EXPECT_TRUE(IsTransient(response)) << status;
  }
  for (const int status : {200, 201, 301, 400, 401, 403, 404, 409, 413}) {
    HttpResponse response;
    response.status = status;
    EXPECT_FALSE(IsTransient(response)) << status;
  }
  HttpResponse failed;
  failed.failure = HttpFailure::kConnection;
  failed.status = 200;  // The connection may fail after the header.
  EXPECT_TRUE(IsTransient(failed));
  failed.failure = HttpFailure::kTrust;
  failed.status = 503;
  EXPECT_FALSE(IsTransient(failed));
}

TEST(RetryTest, TheDelayDoublesUpToThirtySeconds) {
  std::minstd_rand random(1);
  milliseconds expected(500);
  for (int repetition = 0; repetition <= 100; ++repetition) {
    const auto delay = BackoffDelay(repetition, random);
    EXPECT_GE(delay, expected * 3 / 4) << repetition;
    EXPECT_LE(delay, expected * 5 / 4) << repetition;
    expected = std::min(expected * 2, milliseconds(30000));
  }
}

TEST(RetryTest, TheDelaysOfTwoClientsDiffer) {
  std::minstd_rand one(1);
  std::minstd_rand two(2);
  int different = 0;
  for (int i = 0; i < 20; ++i) different += BackoffDelay(6, one) != BackoffDelay(6, two) ? 1 : 0;
  EXPECT_GT(different, 10);
}

TEST(RetryTest, ParsesRetryAfterInSeconds) {
  EXPECT_EQ(ParseRetryAfter("0", kNow), seconds(0));
  EXPECT_EQ(ParseRetryAfter("120", kNow), seconds(120));
  EXPECT_GT(ParseRetryAfter("99999999999999999999", kNow), std::chrono::hours(24));
}

TEST(RetryTest, ParsesRetryAfterAsADate) {
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:50:37 GMT", kNow), seconds(60));
  EXPECT_EQ(ParseRetryAfter("Mon, 07 Nov 1994 08:49:37 GMT", kNow), seconds(86400));
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:49:00 GMT", kNow), seconds(0)) << "in the past";
  EXPECT_GT(ParseRetryAfter("Fri, 31 Dec 9999 23:59:60 GMT", kNow), std::chrono::hours(24));
}

TEST(RetryTest, IgnoresAMalformedRetryAfter) {
  for (const char* value : {"", "-1", "1.5", "soon", "1 s", "Sun, 06 Nov 1994 08:49:37",
                            "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
                            "Sun, 06 Now 1994 08:49:37 GMT", "Sun, 06 Nov -994 08:49:37 GMT",
                            "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
                            "Sun, 06 Nov 1994 08:49:37 UTC"}) {
    EXPECT_EQ(ParseRetryAfter(value, kNow), std::nullopt) << value;
  }
}

}  // namespace
}  // namespace msb::registry
