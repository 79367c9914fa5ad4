// SPDX-License-Identifier: Apache-2.0

#include "src/registry/chunk_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "src/artifact/integrity.h"
#include "src/base/digest.h"
#include "src/base/regular_file.h"
#include "src/disk/scan.h"
#include "tests/support/support.h"

namespace msb::registry {
namespace {

using test::Noise;

constexpr std::uint64_t kLeaf = artifact::kMerkleLeafBytes;
constexpr std::uint64_t kChunk = 2 * kLeaf;

// Returns the hash of the chunk with this content in a file of size bytes.
artifact::MerkleHash HashOf(const std::string& content, std::uint64_t size) {
  std::vector<std::byte> buffer(disk::kRegionHeadroom + content.size());
  std::copy_n(reinterpret_cast<const std::byte*>(content.data()), content.size(),
              buffer.begin() + disk::kRegionHeadroom);
  const artifact::MerkleTree tree(size);
  return tree.Hash(std::span(buffer).subspan(disk::kRegionHeadroom), tree.LevelOf(kChunk));
}

// Returns the table of a file with this content.
ChunkTable TableOf(const std::string& content) {
  ChunkTable table{.file = "upper.ext4", .size = content.size(), .chunk_size = kChunk};
  for (std::uint64_t index = 0; index * kChunk < content.size(); ++index) {
    const std::string chunk = content.substr(index * kChunk, kChunk);
    if (chunk.find_first_not_of('\0') == chunk.npos) continue;
    table.chunks.push_back(
        {index, HashOf(chunk, content.size()), {base::Sha256Digest(chunk), 100 + index}});
  }
  table.root = RootOf(table);
  return table;
}

// Five chunks and a half, of which the third is a hole.
std::string DiskContent() {
  return Noise(2 * kChunk, 1) + std::string(kChunk, '\0') + Noise(2 * kChunk + kLeaf, 2);
}

// Returns the document with the first occurrence of from replaced.
std::string Changed(const std::string& from, const std::string& to) {
  std::string text = WriteChunkTable(TableOf(DiskContent()));
  const std::size_t place = text.find(from);
  EXPECT_NE(place, text.npos) << from;
  return text.replace(place, from.size(), to);
}

void ExpectTableRefused(const std::string& text, const std::string& problem) {
  EXPECT_MSB_ERROR(ParseChunkTable(text, "the table of x"), ErrorKind::kSnapshotIntegrity,
                   "the table of x is malformed", problem, "push the snapshot again");
}

TEST(ChunkTableTest, IsReadAsItWasWritten) {
  const ChunkTable table = TableOf(DiskContent());
  const ChunkTable read = ParseChunkTable(WriteChunkTable(table), "x");
  EXPECT_EQ(read.file, "upper.ext4");
  EXPECT_EQ(read.size, table.size);
  EXPECT_EQ(read.chunk_size, kChunk);
  EXPECT_EQ(read.root, table.root);
  ASSERT_EQ(read.chunks.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(read.chunks[i].index, i < 2 ? i : i + 1);
    EXPECT_EQ(read.chunks[i].hash, table.chunks[i].hash);
    EXPECT_EQ(read.chunks[i].blob, table.chunks[i].blob);
  }
  EXPECT_EQ(read.RangeOf(5).length, kLeaf);
}

// The chunks are nodes of the tree whose root a snapshot records.
TEST(ChunkTableTest, TheRootIsTheIntegrityOfTheFile) {
  for (const std::uint64_t bytes : {kLeaf - 1, kLeaf, kChunk, 3 * kChunk + 5, 6 * kChunk}) {
    const test::TempDir dir;
    const std::string content = Noise(bytes, 3);
    test::WriteFile(dir / "disk", content);
    const base::UniqueFd fd = base::OpenRegularFile(dir / "disk", ErrorKind::kIO);
    EXPECT_EQ(TableOf(content).root, artifact::ComputeIntegrity(Context::Background(), fd.get(),
                                                                bytes, artifact::kFileMerkle)
                                         .digest)
        << bytes;
  }
}

TEST(ChunkTableTest, AFileOfZerosHasNoChunks) {
  const ChunkTable table = TableOf(std::string(5 * kChunk, '\0'));
  EXPECT_TRUE(table.chunks.empty());
  EXPECT_EQ(ParseChunkTable(WriteChunkTable(table), "x").root, table.root);
  const ChunkTable empty = TableOf("");
  EXPECT_EQ(ParseChunkTable(WriteChunkTable(empty), "x").size, 0U);
}

TEST(ChunkTableTest, ListsABlobOnceThatSeveralChunksShare) {
  const std::string chunk = Noise(kChunk, 1);
  EXPECT_EQ(TableOf(chunk + chunk + Noise(kChunk, 2) + chunk).Blobs().size(), 2U);
}

TEST(ChunkTableTest, RefusesChunksThatAreMissingRepeatedOrOutOfOrder) {
  ChunkTable table = TableOf(DiskContent());
  table.chunks.erase(table.chunks.begin() + 1);
  ExpectTableRefused(WriteChunkTable(table), "chunks have the root blake3:");
  table = TableOf(DiskContent());
  table.chunks.insert(table.chunks.begin(), table.chunks[0]);
  ExpectTableRefused(WriteChunkTable(table), "chunks[1].index is 0, but must be greater than 0");
  table = TableOf(DiskContent());
  std::swap(table.chunks[0], table.chunks[1]);
  ExpectTableRefused(WriteChunkTable(table), "chunks[1].index is 0, but must be greater than 1");
}

TEST(ChunkTableTest, RefusesChunksBeyondTheEnd) {
  ChunkTable table = TableOf(DiskContent());
  table.chunks.back().index = 6;
  ExpectTableRefused(WriteChunkTable(table), "chunks[4].index is 6, which is beyond the end");
  table.chunks.back().index = (std::uint64_t{1} << 53) - 1;
  ExpectTableRefused(WriteChunkTable(table), "which is beyond the end");
  ChunkTable empty = TableOf("");
  empty.chunks.push_back(table.chunks[0]);
  ExpectTableRefused(WriteChunkTable(empty), "which is beyond the end");
}

TEST(ChunkTableTest, RefusesHashesThatDoNotFormTheRoot) {
  ChunkTable table = TableOf(DiskContent());
  table.chunks[2].hash[0] ^= 1;
  ExpectTableRefused(WriteChunkTable(table), "but the table records " + table.root);
  ++table.size;
  ExpectTableRefused(WriteChunkTable(table), "but the table records " + table.root);
}

TEST(ChunkTableTest, RefusesAListedChunkOfZeros) {
  ChunkTable table = TableOf(DiskContent());
  Chunk zeros = table.chunks[2];
  zeros.index = 2;
  zeros.hash = HashOf("", table.size);
  table.chunks.insert(table.chunks.begin() + 2, zeros);
  ExpectTableRefused(WriteChunkTable(table), "chunks[2] holds only zeros");
}

TEST(ChunkTableTest, RefusesChunkSizesThatAreNotPowersOfTwoWithinTheLimits) {
  for (const char* size :
       {"0", "1", "32768", "131073", "196608", "536870912", "9007199254740991"}) {
    ExpectTableRefused(Changed("\"chunk_size\":131072", std::string("\"chunk_size\":") + size),
                       "chunk_size must be a power of two from 65536 to 268435456, but is");
  }
}

TEST(ChunkTableTest, RefusesBlobsThatAreEmptyOrTooLong) {
  for (const char* size : {"0", "200000000", "9007199254740991"}) {
    ExpectTableRefused(Changed("\"size\":100}", std::string("\"size\":") + size + "}"),
                       "chunks[0].size must be from 1 to ");
  }
}

// A blob need not be longer than the part of its chunk within the file, whatever the chunk size is.
TEST(ChunkTableTest, LimitsABlobByTheSizeOfTheFile) {
  ChunkTable table = TableOf(Noise(kLeaf, 1));
  table.chunk_size = kMaxChunkBytes;
  table.root = RootOf(table);
  EXPECT_EQ(ParseChunkTable(WriteChunkTable(table), "x").chunk_size, kMaxChunkBytes);
  table.chunks.at(0).blob.size = 2 * kLeaf;
  ExpectTableRefused(WriteChunkTable(table), "chunks[0].size must be from 1 to 65");
}

TEST(ChunkTableTest, RefusesMalformedDocuments) {
  ExpectTableRefused("", "invalid JSON");
  ExpectTableRefused(std::string(1000, '['), "nested deeper");
  ExpectTableRefused(Changed("\"schema\":1", "\"schema\":2"), "schema");
  ExpectTableRefused(Changed("\"schema\":1", "\"schema\":1,\"other\":1"), "other");
  ExpectTableRefused(Changed("\"file\":\"upper.ext4\",", ""), "file");
  ExpectTableRefused(Changed("\"chunks\":[", "\"chunks\":[7,"), "chunks[0]");
  ExpectTableRefused(Changed("sha256:", "sha512:"), "chunks[0].digest");
  ExpectTableRefused(Changed("msb-file-merkle-blake3-v1", "sha256"), "integrity");
  ExpectTableRefused(Changed("\"size\":" + std::to_string(DiskContent().size()), "\"size\":-1"),
                     "size");
}

TEST(ChunkTableTest, RefusesMoreChunksThanAManifestCanList) {
  ChunkTable table{.file = "x", .size = (kMaxChunks + 1) * kChunk, .chunk_size = kChunk};
  for (std::uint64_t i = 0; i <= kMaxChunks; ++i) {
    table.chunks.push_back({i, HashOf("x", table.size), {base::Sha256Digest("x"), 1}});
  }
  table.root = RootOf(table);
  ExpectTableRefused(WriteChunkTable(table), "chunks has 16385 elements, but at most 16384");
  table.chunks.pop_back();
  table.root = RootOf(table);
  const std::string text = WriteChunkTable(table);
  EXPECT_LE(text.size(), kMaxTableBytes);
  EXPECT_EQ(ParseChunkTable(text, "x").chunks.size(), kMaxChunks);
}

TEST(ChunkSizeTest, GrowsWithTheDataAndNotWithTheHoles) {
  const std::uint64_t least = ChunkSizeFor({}, "x");
  EXPECT_EQ(ChunkSizeFor({{0, 1}, {std::uint64_t{1} << 50, 1}}, "x"), least);
  const std::uint64_t most = kMaxChunks * least;
  EXPECT_EQ(ChunkSizeFor({{0, most}}, "x"), least);
  EXPECT_EQ(ChunkSizeFor({{0, most + 1}}, "x"), 2 * least);
  // Two extents in one chunk count once.
  EXPECT_EQ(ChunkSizeFor({{0, most - 4096}, {most - 2048, 2048}}, "x"), least);
  EXPECT_EQ(ChunkSizeFor({{1, most}}, "x"), 2 * least);
}

TEST(ChunkSizeTest, RefusesTooMuchData) {
  EXPECT_MSB_ERROR(ChunkSizeFor({{0, kMaxChunks * kMaxChunkBytes + 1}}, "/x/upper.ext4"),
                   ErrorKind::kUnsupportedOperation, "/x/upper.ext4 has more than 4398046511104",
                   "export it instead");
}

}  // namespace
}  // namespace msb::registry
