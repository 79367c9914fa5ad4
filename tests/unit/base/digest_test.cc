// SPDX-License-Identifier: Apache-2.0

#include "src/base/digest.h"

#include <gtest/gtest.h>

#include "tests/support/support.h"

namespace msb::base {
namespace {

// FIPS 180-2, appendix B.1.
TEST(DigestTest, HashesTheStandardsExample) {
  EXPECT_EQ(Sha256Digest("abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(DigestTest, HashesInPartsAsInOnePiece) {
  Sha256 hash;
  hash.Update("a", 1);
  hash.Update("bc", 2);
  EXPECT_EQ(hash.Finish(), Sha256Digest("abc"));
}

TEST(DigestTest, TakesOnlyLowerCaseHexOfTheRightLengthForADigest) {
  const std::string digits(64, 'a');
  EXPECT_TRUE(IsDigest("sha256:" + digits, "sha256"));
  EXPECT_TRUE(IsDigest("blake3:" + digits, "blake3"));
  EXPECT_FALSE(IsDigest("sha256:" + digits, "blake3"));
  EXPECT_FALSE(IsDigest("sha256:" + std::string(64, 'A'), "sha256"));
  EXPECT_FALSE(IsDigest("sha256:" + std::string(64, 'g'), "sha256"));
  EXPECT_FALSE(IsDigest("sha256:" + digits.substr(1), "sha256"));
  EXPECT_FALSE(IsDigest("sha256:" + digits + "a", "sha256"));
  EXPECT_FALSE(IsDigest("sha256" + digits, "sha256"));
  EXPECT_FALSE(IsDigest("", "sha256"));
}

TEST(DigestTest, HasAnAlgorithmAndHexDigits) {
  const std::string digits(64, 'a');
  const auto digest = Digest::Parse("sha256:" + digits);
  ASSERT_TRUE(digest);
  EXPECT_EQ(digest->algorithm(), "sha256");
  EXPECT_EQ(digest->hex(), digits);
  EXPECT_EQ(digest->ToString(), "sha256:" + digits);
  EXPECT_EQ(*digest, Digest::Require("sha256:" + digits));
  EXPECT_NE(*digest, Digest::Require("blake3:" + digits));
}

TEST(DigestTest, RefusesTextsThatAreNotDigests) {
  const std::string digits(64, 'a');
  for (const std::string& text :
       {std::string(), digits, ":" + digits, "sha256:" + digits.substr(1), "sha256:../" + digits,
        "a:sha256:" + digits, "snap_" + digits, "sha256:" + std::string(64, 'A')}) {
    EXPECT_FALSE(Digest::Parse(text)) << text;
    EXPECT_MSB_ERROR(Digest::Require(text), ErrorKind::kInternal, "is not a digest");
  }
}

}  // namespace
}  // namespace msb::base
