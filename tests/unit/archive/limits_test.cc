// SPDX-License-Identifier: Apache-2.0

#include "src/archive/limits.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

#include "src/artifact/integrity.h"

namespace msb::archive {
namespace {

using Excess = ArchiveBudget::Excess;

constexpr std::uint64_t kAny = std::numeric_limits<std::uint64_t>::max();

TEST(ArchiveBudgetTest, AllowsAsManyEntriesAndImageFilesAsTheLimits) {
  ArchiveBudget budget;
  for (std::size_t i = 0; i < kMaxEntries; ++i) ASSERT_EQ(budget.AddEntry(), std::nullopt);
  EXPECT_EQ(budget.AddEntry(), Excess("exceeds the limit of 16384 entries"));
  for (std::size_t i = 0; i < kMaxImageFiles; ++i) ASSERT_EQ(budget.AddImageFile(), std::nullopt);
  EXPECT_EQ(budget.AddImageFile(), Excess("exceeds the limit of 2048 image files"));
}

TEST(ArchiveBudgetTest, LimitsTheSumOfTheMetadata) {
  ArchiveBudget budget;
  EXPECT_EQ(budget.AddMetadata(1), std::nullopt);
  EXPECT_EQ(budget.AddMetadata(kMaxMetadataBytes - 1), std::nullopt);
  const Excess excess = "exceeds the limit of 50331648 bytes of manifests and image metadata";
  EXPECT_EQ(budget.AddMetadata(1), excess);
  // The sum does not overflow.
  EXPECT_EQ(budget.AddMetadata(kAny), excess);
}

TEST(ArchiveBudgetTest, LimitsTheSumOfTheBytesThatAreHashedWithTheirHoles) {
  ArchiveBudget budget;
  EXPECT_EQ(budget.AddHashed(kAny, artifact::kFileMerkle), std::nullopt);
  EXPECT_EQ(budget.AddHashed(1, artifact::kSha256), std::nullopt);
  EXPECT_EQ(budget.AddHashed(kMaxHashedBytes - 1, artifact::kSparseSha256), std::nullopt);
  const Excess excess = "exceeds the limit of 1099511627776 bytes to hash with SHA-256";
  EXPECT_EQ(budget.AddHashed(1, artifact::kSha256), excess);
  EXPECT_EQ(budget.AddHashed(kAny, artifact::kSha256), excess);
}

}  // namespace
}  // namespace msb::archive
