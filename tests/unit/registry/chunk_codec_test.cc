// SPDX-License-Identifier: Apache-2.0

#include "src/registry/chunk_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

#include "src/base/file.h"
#include "src/base/regular_file.h"
#include "tests/support/support.h"

namespace msb::registry {
namespace {

using test::Noise;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(ChunkCodecTest, DecompressesWhatItCompressed) {
  ChunkCodec codec;
  for (const std::string& chunk : {std::string("x"), Noise(1 << 20, 1), std::string(100000, 'a')}) {
    EXPECT_EQ(Text(codec.Decompress(codec.Compress(Bytes(chunk), 3), chunk.size())), chunk);
  }
}

TEST(ChunkCodecTest, TheBlobDoesNotDependOnZerosAtTheEnd) {
  ChunkCodec codec;
  const std::string chunk = Noise(1000, 1);
  EXPECT_EQ(codec.Compress(Bytes(chunk + std::string(5000, '\0')), 3),
            codec.Compress(Bytes(chunk), 3));
  EXPECT_EQ(codec.Decompress(codec.Compress(Bytes(std::string(10, '\0')), 3), 10).size(), 0U);
}

TEST(ChunkCodecTest, TheBlobDoesNotDependOnEarlierChunks) {
  ChunkCodec used;
  const std::string chunk = Noise(1000, 1) + Noise(3 << 20, 2) + Noise(1000, 1);
  for (const int level : {1, 3, 9}) {
    used.Compress(Bytes(Noise(1 << 20, 3)), level);
    const std::string blob = used.Compress(Bytes(chunk), level);
    EXPECT_EQ(blob, ChunkCodec().Compress(Bytes(chunk), level));
    EXPECT_EQ(Text(used.Decompress(blob, chunk.size())), chunk);
  }
}

TEST(ChunkCodecTest, StopsWithinAChunk) {
  std::atomic<bool> stop = false;
  ChunkCodec codec(&stop);
  const std::string blob = codec.Compress(Bytes(Noise(1000, 1)), 3);
  stop = true;
  EXPECT_THROW(codec.Compress(Bytes(Noise(1000, 1)), 3), WorkStopped);
  EXPECT_THROW(codec.Digest(blob), WorkStopped);
  EXPECT_THROW(codec.Hash(artifact::MerkleTree(1000), codec.Decompress(blob, 1000), 0),
               WorkStopped);
  stop = false;
  EXPECT_EQ(codec.Compress(Bytes(Noise(1000, 1)), 3), blob);
}

TEST(ChunkCodecTest, RefusesContentThatIsLongerThanTheChunk) {
  ChunkCodec codec;
  const std::string blob = codec.Compress(Bytes(std::string(1 << 20, 'x')), 3);
  EXPECT_LT(blob.size(), 1000U);
  EXPECT_THAT([&] { codec.Decompress(blob, (1 << 20) - 1); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("at most 1048575 bytes")));
}

TEST(ChunkCodecTest, RefusesAnythingButOneFrame) {
  ChunkCodec codec;
  const std::string blob = codec.Compress(Bytes(Noise(1000, 1)), 3);
  const std::string skippable("\x50\x2a\x4d\x18\x04\0\0\0abcd", 12);
  for (const std::string& wrong : {std::string(), std::string("text"), blob + "x", blob + blob,
                                   blob.substr(0, blob.size() - 1), blob + skippable, skippable}) {
    EXPECT_THAT([&] { codec.Decompress(wrong, 10000); },
                ThrowsMessage<std::invalid_argument>(HasSubstr("zstd frame")));
  }
  std::string damaged = blob;
  damaged[blob.size() / 2] ^= 1;
  bool refused = false;
  try {
    refused = Text(codec.Decompress(damaged, 10000)) != Noise(1000, 1);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  EXPECT_TRUE(refused);
}

TEST(ChunkCodecTest, ReadsHolesAsZeros) {
  const test::TempDir dir;
  test::WriteFile(dir / "file", "0123456789");
  const base::UniqueFd fd = base::OpenRegularFile(dir / "file", ErrorKind::kIO);
  ChunkCodec codec;
  codec.Compress(Bytes(Noise(100, 1)), 3);
  codec.Read(fd.get(), {0, 10}, std::vector<disk::Extent>{{0, 10}});  // Leaves bytes behind.
  EXPECT_EQ(Text(codec.Read(fd.get(), {2, 8}, std::vector<disk::Extent>{{3, 2}, {7, 1}})),
            std::string("\0"
                        "34\0\0"
                        "7\0\0",
                        8));
  EXPECT_MSB_ERROR(codec.Read(fd.get(), {0, 20}, std::vector<disk::Extent>{{0, 20}}),
                   ErrorKind::kIO, (dir / "file").native());
}

}  // namespace
}  // namespace msb::registry
