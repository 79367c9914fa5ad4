// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <algorithm>

#include "src/registry/file_push.h"

namespace msb::registry {
namespace {

TEST(PushMemoryTest, CountsTheMemoryOfTheCompressors) {
  for (const unsigned cores : {1U, 2U, 4U, 64U}) {
    for (int level = 1; level <= 19; ++level) {
      const PushMemory memory = PushMemoryFor(level, cores);
      EXPECT_GE(memory.workers, 1U);
      EXPECT_LE(memory.workers, std::min(cores, kMaxWorkers));
      // Each worker has room for the blob that it makes.
      EXPECT_GE(memory.blob_bytes, memory.workers * kMaxKeptBytes) << level;
      EXPECT_LE(memory.workers * (CompressionBytes(level) + kMaxKeptBytes) + memory.blob_bytes,
                kMaxPushBytes)
          << level;
    }
    EXPECT_EQ(PushMemoryFor(19, cores).workers, 1U);
  }
  EXPECT_GE(PushMemoryFor(3, 64).workers, 4U);
}

TEST(PushMemoryTest, HighLevelsNeedMore) {
  EXPECT_LT(CompressionBytes(1), 4U << 20);
  EXPECT_GT(CompressionBytes(12), 30U << 20);
  EXPECT_GT(CompressionBytes(19), 60U << 20);
}

}  // namespace
}  // namespace msb::registry
