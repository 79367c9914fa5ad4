// SPDX-License-Identifier: Apache-2.0

#include "msb/version.h"

#include <gtest/gtest.h>

#include <string>

namespace msb {
namespace {

TEST(VersionTest, LibraryReportsTheVersionOfItsHeaders) {
  EXPECT_EQ(Version(), MSB_VERSION_STRING);
  EXPECT_EQ(Version(), std::to_string(MSB_VERSION_MAJOR) + "." + std::to_string(MSB_VERSION_MINOR) +
                           "." + std::to_string(MSB_VERSION_PATCH));
}

}  // namespace
}  // namespace msb
