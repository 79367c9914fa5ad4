// SPDX-License-Identifier: Apache-2.0

#include "src/base/duration.h"

#include <gtest/gtest.h>

namespace msb::base {
namespace {

TEST(DurationTest, NamesTheUnit) {
  using std::chrono::milliseconds;
  EXPECT_EQ(FormatDuration(milliseconds(0)), "0 ms");
  EXPECT_EQ(FormatDuration(milliseconds(999)), "999 ms");
  EXPECT_EQ(FormatDuration(milliseconds(1000)), "1 s");
  EXPECT_EQ(FormatDuration(milliseconds(2540)), "2.5 s");
  EXPECT_EQ(FormatDuration(milliseconds(2999)), "3 s");
  EXPECT_EQ(FormatDuration(milliseconds(30'000)), "30 s");
}

}  // namespace
}  // namespace msb::base
