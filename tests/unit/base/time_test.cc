// SPDX-License-Identifier: Apache-2.0

#include "src/base/time.h"

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace msb::base {
namespace {

using std::chrono::system_clock;

// Returns a time as manifests show it, or "none".
std::string Show(const std::optional<UtcTime>& time) {
  return time ? FormatManifestTime(*time) : "none";
}

std::string Parsed(std::string_view text) { return Show(ParseRfc3339(text)); }

std::string Descriptor(std::string_view text) {
  const auto time = ParseRfc3339(text);
  return time ? FormatDescriptorTime(*time) : "none";
}

TEST(TimeTest, ReadsTheTimesOfManifests) {
  const auto time = ParseRfc3339("2026-11-23T12:58:59.427654752+00:00");
  ASSERT_TRUE(time);
  EXPECT_EQ(time->seconds.time_since_epoch().count(), 1'795'438'739);
  EXPECT_EQ(time->nanoseconds, 427'654'752U);
  EXPECT_EQ(FormatManifestTime(*time), "2026-11-23T12:58:59.427654752+00:00");
}

TEST(TimeTest, ReadsTimesBeforeTheEpoch) {
  const auto time = ParseRfc3339("1969-12-31T23:59:58.25Z");
  ASSERT_TRUE(time);
  EXPECT_EQ(time->seconds.time_since_epoch().count(), -2);
  EXPECT_EQ(Show(time), "1969-12-31T23:59:58.250000000+00:00");
}

TEST(TimeTest, TakesLowerCaseLettersAndASpaceForTheT) {
  const std::string same = "2026-11-23T12:58:59.000000000+00:00";
  EXPECT_EQ(Parsed("2026-11-23T12:58:59Z"), same);
  EXPECT_EQ(Parsed("2026-11-23t12:58:59z"), same);
  EXPECT_EQ(Parsed("2026-11-23 12:58:59Z"), same);
  EXPECT_EQ(Parsed("2026-11-23 12:58:59+00:00"), same);
  EXPECT_EQ(Parsed("2026-11-23T12:58:59-00:00"), same);
}

TEST(TimeTest, TurnsOffsetsIntoUtc) {
  EXPECT_EQ(Parsed("2026-11-23T12:58:59+05:30"), "2026-11-23T07:28:59.000000000+00:00");
  EXPECT_EQ(Parsed("2026-11-23T12:58:59-05:30"), "2026-11-23T18:28:59.000000000+00:00");
  EXPECT_EQ(Parsed("2024-02-29T23:30:00-01:00"), "2024-03-01T00:30:00.000000000+00:00");
  EXPECT_EQ(Parsed("2026-01-01T00:00:00+23:59"), "2025-12-31T00:01:00.000000000+00:00");
}

TEST(TimeTest, RefusesInvalidOffsets) {
  for (const char* offset : {"", "+24:00", "+00:60", "+0000", "+00", "+0:00", "00:00", "+00:0",
                             "ZZ", "Z+00:00", " Z", "Z ", "+00:00Z", "UTC"}) {
    EXPECT_EQ(Parsed(std::string("2026-11-23T12:58:59") + offset), "none") << offset;
  }
}

TEST(TimeTest, DropsFractionDigitsAfterTheNinth) {
  EXPECT_EQ(Parsed("2026-11-23T12:58:59.427654752999Z"), "2026-11-23T12:58:59.427654752+00:00");
  EXPECT_EQ(Parsed("2026-11-23T12:58:59.999999999999Z"), "2026-11-23T12:58:59.999999999+00:00");
  EXPECT_EQ(Parsed("2026-11-23T12:58:59.5Z"), "2026-11-23T12:58:59.500000000+00:00");
  EXPECT_EQ(Parsed("2026-11-23T12:58:59." + std::string(1000, '1') + "Z"),
            "2026-11-23T12:58:59.111111111+00:00");
}

TEST(TimeTest, RefusesAFractionWithoutDigits) {
  EXPECT_EQ(Parsed("2026-11-23T12:58:59.Z"), "none");
  EXPECT_EQ(Parsed("2026-11-23T12:58:59."), "none");
  EXPECT_EQ(Parsed("2026-11-23T12:58:59,5Z"), "none");
  EXPECT_EQ(Parsed("2026-11-23T12:58:59.-5Z"), "none");
}

TEST(TimeTest, KeepsALeapSecond) {
  const auto leap = ParseRfc3339("2016-12-31T23:59:60.5Z");
  ASSERT_TRUE(leap);
  EXPECT_EQ(FormatManifestTime(*leap), "2016-12-31T23:59:60.500000000+00:00");
  EXPECT_EQ(FormatDescriptorTime(*leap), "2016-12-31T23:59:60.5Z");
  EXPECT_EQ(FormatIndexTime(*leap), "2016-12-31 23:59:60.500000000");
  EXPECT_EQ(leap->ToTimePoint(), ParseRfc3339("2017-01-01T00:00:00.5Z")->ToTimePoint());
  EXPECT_EQ(Parsed("2016-12-31T23:59:61Z"), "none");
}

TEST(TimeTest, RefusesInvalidDatesAndTimes) {
  for (const char* text : {"",
                           "2026-02-30T00:00:00Z",
                           "2026-02-29T00:00:00Z",
                           "1900-02-29T00:00:00Z",
                           "2026-04-31T00:00:00Z",
                           "2026-13-01T00:00:00Z",
                           "2026-00-01T00:00:00Z",
                           "2026-01-00T00:00:00Z",
                           "2026-01-32T00:00:00Z",
                           "2026-01-01T24:00:00Z",
                           "2026-01-01T00:60:00Z",
                           "2026-01-01",
                           "2026-01-01T",
                           "2026-01-01T00:00Z",
                           "26-01-01T00:00:00Z",
                           "+2026-01-01T00:00:00Z",
                           "-2026-01-01T00:00:00Z",
                           "12026-01-01T00:00:00Z",
                           "2026-1-01T00:00:00Z",
                           "2026/01/01T00:00:00Z",
                           "2026-01-01_00:00:00Z",
                           "2026-01-01T 0:00:00Z",
                           " 2026-01-01T00:00:00Z",
                           "yesterday"}) {
    EXPECT_EQ(Parsed(text), "none") << text;
  }
  EXPECT_NE(Parsed("2024-02-29T00:00:00Z"), "none");
  EXPECT_NE(Parsed("2000-02-29T00:00:00Z"), "none");
}

TEST(TimeTest, TakesTheYears0000To9999AndNoOthers) {
  EXPECT_EQ(Parsed("0000-01-01T00:00:00Z"), "0000-01-01T00:00:00.000000000+00:00");
  EXPECT_EQ(Parsed("9999-12-31T23:59:59.999999999Z"), "9999-12-31T23:59:59.999999999+00:00");
  // Only the offset takes these out of range.
  EXPECT_EQ(Parsed("0000-01-01T00:00:00+00:01"), "none");
  EXPECT_EQ(Parsed("9999-12-31T23:59:59-00:01"), "none");
}

TEST(TimeTest, WritesDescriptorsWithoutTrailingZeros) {
  EXPECT_EQ(Descriptor("2026-11-23T12:59:10.50+00:00"), "2026-11-23T12:59:10.5Z");
  EXPECT_EQ(Descriptor("2026-11-23T12:59:10.000+00:00"), "2026-11-23T12:59:10Z");
  EXPECT_EQ(Descriptor("2026-11-23T12:59:10+00:00"), "2026-11-23T12:59:10Z");
  EXPECT_EQ(Descriptor("2026-11-23T12:59:23.028585030Z"), "2026-11-23T12:59:23.02858503Z");
  EXPECT_EQ(Descriptor("2026-11-23t14:59:10.000000001+02:00"), "2026-11-23T12:59:10.000000001Z");
}

TEST(TimeTest, ReadsBackTheTimesOfTheIndex) {
  const auto time = ParseRfc3339("2026-11-23T12:59:23.02858503Z");
  ASSERT_TRUE(time);
  EXPECT_EQ(FormatIndexTime(*time), "2026-11-23 12:59:23.028585030");
  EXPECT_EQ(Show(ParseIndexTime(FormatIndexTime(*time))), FormatManifestTime(*time));
}

TEST(TimeTest, ReadsOtherFormsFromTheIndex) {
  const std::string same = "2026-11-23T12:59:23.000000000+00:00";
  EXPECT_EQ(Show(ParseIndexTime("2026-11-23 12:59:23")), same);
  EXPECT_EQ(Show(ParseIndexTime("2026-11-23T12:59:23")), same);
  EXPECT_EQ(Show(ParseIndexTime("2026-11-23T12:59:23Z")), same);
  EXPECT_EQ(Show(ParseIndexTime("2026-11-23 13:59:23+01:00")), same);
  EXPECT_EQ(Show(ParseIndexTime("2026-11-23 12:59:23.5")), "2026-11-23T12:59:23.500000000+00:00");
}

// https://sqlite.org/lang_datefunc.html, time values 1, 2 and 5.
TEST(TimeTest, ReadsSqlitesDatesWithoutSecondsOrATime) {
  EXPECT_EQ(Show(ParseIndexTime("2026-11-23")), "2026-11-23T00:00:00.000000000+00:00");
  EXPECT_EQ(Show(ParseIndexTime("2026-11-23 12:59")), "2026-11-23T12:59:00.000000000+00:00");
  EXPECT_EQ(Show(ParseIndexTime("2026-11-23T12:59")), "2026-11-23T12:59:00.000000000+00:00");
}

TEST(TimeTest, RefusesInvalidIndexTimes) {
  for (const char* text : {"", "12:59:23", "2026-02-30 12:59:23", "2026-11-23 12:59:23 ",
                           "2026-11-23 24:00:00", "2026-11-23 12:59:23.", "2026-11-23 12",
                           "2026-11-23 ", "2026-11-23 12:", "2026-11-23 12:59:", "now"}) {
    EXPECT_EQ(Show(ParseIndexTime(text)), "none") << text;
  }
}

TEST(TimeTest, KeepsTheTimeOfASystemClock) {
  const auto point = system_clock::time_point(std::chrono::nanoseconds(-1'500'000'001));
  const UtcTime time = UtcTime::From(point);
  EXPECT_EQ(FormatManifestTime(time), "1969-12-31T23:59:58.499999999+00:00");
  EXPECT_EQ(time.ToTimePoint(), point);
}

TEST(TimeTest, ReturnsTheCurrentTime) {
  const auto before = system_clock::now();
  const auto now = UtcTime::Now().ToTimePoint();
  EXPECT_GE(now, before);
  EXPECT_LE(now, system_clock::now());
}

TEST(TimeTest, ClampsYearsThatNoSystemClockCanTell) {
  EXPECT_EQ(ParseRfc3339("0001-01-01T00:00:00Z")->ToTimePoint(), system_clock::time_point::min());
  EXPECT_EQ(ParseRfc3339("9999-12-31T23:59:59Z")->ToTimePoint(), system_clock::time_point::max());
  EXPECT_EQ(ParseRfc3339("1677-01-01T00:00:00Z")->ToTimePoint(), system_clock::time_point::min());
  EXPECT_EQ(ParseRfc3339("2263-01-01T00:00:00Z")->ToTimePoint(), system_clock::time_point::max());
  const auto early = ParseRfc3339("1678-01-01T00:00:00.5Z");
  const auto late = ParseRfc3339("2261-12-31T23:59:59.5Z");
  EXPECT_EQ(FormatManifestTime(UtcTime::From(early->ToTimePoint())), FormatManifestTime(*early));
  EXPECT_EQ(FormatManifestTime(UtcTime::From(late->ToTimePoint())), FormatManifestTime(*late));
}

}  // namespace
}  // namespace msb::base
