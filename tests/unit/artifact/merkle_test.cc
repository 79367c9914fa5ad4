// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/merkle.h"

#include <blake3.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include "src/artifact/integrity.h"
#include "src/base/digest.h"
#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::artifact {
namespace {

using namespace std::string_literals;
using test::MakeSparseFile;
using test::Noise;

constexpr std::uint64_t kLeaf = 64 << 10;
constexpr std::uint64_t kRegion = 2 << 20;

// A second implementation, written from the description alone: as plain and as slow as it reads.
std::string Blake3(const std::string& bytes) {
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, bytes.data(), bytes.size());
  std::array<std::uint8_t, 32> hash;
  blake3_hasher_finalize(&hasher, hash.data(), hash.size());
  return std::string(hash.begin(), hash.end());
}

std::string LittleEndian(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xff);
  return text;
}

std::string LeafHash(std::string content) {
  content.resize(kLeaf, '\0');
  return Blake3("msb-file-merkle-blake3-v1\0leaf\0"s + content);
}

std::string ParentHash(const std::string& left, const std::string& right) {
  return Blake3("msb-file-merkle-blake3-v1\0parent\0"s + left + right);
}

std::string Root(std::uint64_t size, std::uint32_t height, const std::string& top) {
  const std::string root = Blake3("msb-file-merkle-blake3-v1\0root\0"s + LittleEndian(size, 8) +
                                  LittleEndian(kLeaf, 4) + LittleEndian(height, 4) + top);
  std::vector<std::uint8_t> bytes(root.begin(), root.end());
  return "blake3:" + base::Hex(bytes);
}

std::string ReferenceRoot(const std::string& content) {
  std::vector<std::string> level;
  for (std::size_t at = 0; at < content.size(); at += kLeaf) {
    level.push_back(LeafHash(content.substr(at, kLeaf)));
  }
  std::size_t width = 1;
  std::uint32_t height = 0;
  for (; width < level.size(); width *= 2) ++height;
  level.resize(width, LeafHash(""));
  while (level.size() > 1) {
    std::vector<std::string> above;
    for (std::size_t i = 0; i < level.size(); i += 2) {
      above.push_back(ParentHash(level[i], level[i + 1]));
    }
    level = std::move(above);
  }
  return Root(content.size(), height, level[0]);
}

// Returns the root of a file of zeros, in which all subtrees of one height are the same.
std::string ReferenceRootOfZeros(std::uint64_t size) {
  std::string hash = LeafHash("");
  std::uint32_t height = 0;
  for (; (kLeaf << height) < size; ++height) hash = ParentHash(hash, hash);
  return Root(size, height, hash);
}

std::string RootOf(const std::filesystem::path& path, std::uint64_t size) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const Integrity found = ComputeIntegrity(Context::Background(), fd.get(), size, kFileMerkle);
  EXPECT_EQ(found.algorithm, "msb-file-merkle-blake3-v1");
  return found.digest;
}

using Data = std::vector<std::pair<std::uint64_t, std::string>>;

// Returns the content of a file that MakeSparseFile makes.
std::string ContentOf(std::uint64_t size, const Data& data) {
  std::string content(size, '\0');
  for (const auto& [offset, bytes] : data) content.replace(offset, bytes.size(), bytes);
  return content;
}

// Makes the file and compares its root with the reference.
void ExpectReferenceRoot(const std::filesystem::path& path, std::uint64_t size, const Data& data) {
  MakeSparseFile(path, size, data);
  EXPECT_EQ(RootOf(path, size), ReferenceRoot(ContentOf(size, data))) << size << " bytes";
}

TEST(MerkleTest, GivesTheRootOfTheDefinitionForEverySizeNearABorder) {
  const test::TempDir dir;
  for (const std::uint64_t size :
       {std::uint64_t{0}, std::uint64_t{1}, kLeaf - 1, kLeaf, kLeaf + 1, 2 * kLeaf, 3 * kLeaf,
        3 * kLeaf + 17, 31 * kLeaf, kRegion - 1, kRegion, kRegion + 1, kRegion + kLeaf, 3 * kRegion,
        4 * kRegion, 5 * kRegion, 5 * kRegion + 1}) {
    ExpectReferenceRoot(dir / "dense", size, {{0, Noise(size, 1)}});
    MakeSparseFile(dir / "hole", size, {});
    EXPECT_EQ(RootOf(dir / "hole", size), ReferenceRoot(std::string(size, '\0'))) << size;
    EXPECT_EQ(RootOf(dir / "hole", size), ReferenceRootOfZeros(size)) << size;
  }
}

TEST(MerkleTest, GivesTheRootOfTheDefinitionForDataAtTheBordersOfRegions) {
  const test::TempDir dir;
  const std::vector<Data> layouts = {
      {{0, "x"}},
      {{kRegion - 1, "x"}},
      {{kRegion, "x"}},
      {{kRegion - 1, "xy"}},
      {{kRegion - kLeaf, Noise(2 * kLeaf, 1)}},
      {{kRegion - 4096, Noise(kRegion + 8192, 2)}},
      {{0, Noise(4096, 3)}, {5 * kRegion - 4096, Noise(4096, 4)}},
      {{2 * kRegion, Noise(kRegion, 5)}},
      {{3 * kRegion, Noise(4096, 6)}, {4 * kRegion, Noise(4096, 7)}},
      {{kLeaf - 4096, Noise(4096, 8)}, {kLeaf, Noise(4096, 9)}},
      {{4096, Noise(4096, 10)}, {3 * 4096, Noise(4096, 11)}, {kLeaf + 4096, Noise(1, 12)}},
      {{5 * kRegion + 9000, "end"}}};
  for (const Data& data : layouts) {
    ExpectReferenceRoot(dir / "sparse", 5 * kRegion + 9003, data);
  }
}

TEST(MerkleTest, GivesTheRootOfTheDefinitionForRandomLayouts) {
  const test::TempDir dir;
  std::mt19937 random(20261123);
  const auto below = [&](std::uint64_t limit) { return random() % limit; };
  for (std::uint32_t round = 0; round < 60; ++round) {
    const std::uint64_t size = 1 + below(round % 3 == 0 ? 3 * kLeaf : 4 * kRegion);
    Data data;
    for (std::uint64_t n = below(7); n > 0; --n) {
      const std::uint64_t offset = below(size);
      const std::uint64_t length = std::min(size - offset, 1 + below(round % 2 ? 9000 : kRegion));
      // Written zeros are data in the file system, but equal to holes in the tree.
      data.emplace_back(offset, below(4) == 0 ? std::string(length, '\0') : Noise(length, round));
    }
    SCOPED_TRACE(round);
    ExpectReferenceRoot(dir / "random", size, data);
  }
}

TEST(MerkleTest, HashesAHoleOfATebibyteAtOnce) {
  const test::TempDir dir;
  for (const std::uint64_t size :
       {std::uint64_t{1} << 30, (std::uint64_t{1} << 40) - 4097, std::uint64_t{1} << 40}) {
    MakeSparseFile(dir / "hole", size, {});
    EXPECT_EQ(RootOf(dir / "hole", size), ReferenceRootOfZeros(size));
  }
}

TEST(MerkleTest, FindsTheOneByteInATebibyte) {
  const test::TempDir dir;
  const std::uint64_t size = std::uint64_t{1} << 40;
  const std::uint64_t offset = (size / 3) / kLeaf * kLeaf + 5;
  MakeSparseFile(dir / "needle", size, {{offset, "x"}});
  std::string hash = LeafHash("\0\0\0\0\0x"s);
  std::string zero = LeafHash("");
  std::uint32_t height = 0;
  for (std::uint64_t index = offset / kLeaf; (kLeaf << height) < size; ++height, index /= 2) {
    hash = index % 2 == 0 ? ParentHash(hash, zero) : ParentHash(zero, hash);
    zero = ParentHash(zero, zero);
  }
  EXPECT_EQ(RootOf(dir / "needle", size), Root(size, height, hash));
}

TEST(MerkleTest, DoesNotDependOnWhereTheHolesAre) {
  const test::TempDir dir;
  const std::uint64_t size = 2 * kRegion + 12345;
  const Data data = {{kLeaf + 100, Noise(5000, 1)}, {kRegion + 3 * kLeaf, Noise(kLeaf, 2)}};
  MakeSparseFile(dir / "sparse", size, data);
  test::WriteFile(dir / "dense", ContentOf(size, data));
  EXPECT_EQ(RootOf(dir / "sparse", size), RootOf(dir / "dense", size));
}

TEST(MerkleTest, DependsOnTheLengthAndOnEachByte) {
  const test::TempDir dir;
  const std::string content = Noise(3 * kLeaf, 1);
  test::WriteFile(dir / "disk", content + std::string(kLeaf, '\0'));
  const std::string root = RootOf(dir / "disk", 4 * kLeaf);
  EXPECT_NE(RootOf(dir / "disk", 3 * kLeaf), root);
  EXPECT_NE(RootOf(dir / "disk", 4 * kLeaf - 1), root);
  for (const std::uint64_t offset : {std::uint64_t{0}, kLeaf, 4 * kLeaf - 1}) {
    test::PatchFile(dir / "disk", offset, "\x01");
    EXPECT_NE(RootOf(dir / "disk", 4 * kLeaf), root) << offset;
    test::PatchFile(dir / "disk", offset,
                    offset < content.size() ? content.substr(offset, 1) : std::string(1, '\0'));
    EXPECT_EQ(RootOf(dir / "disk", 4 * kLeaf), root);
  }
}

TEST(MerkleTest, TakesTheRegionsInAnyOrder) {
  const std::uint64_t size = 4 * kRegion;
  const std::string content = Noise(size, 1);
  std::vector<std::uint64_t> order = {0, 1, 2, 3};
  do {
    MerkleHasher hasher(size);
    for (const std::uint64_t index : order) {
      std::vector<std::byte> buffer(disk::kRegionHeadroom + kRegion);
      std::memcpy(buffer.data() + disk::kRegionHeadroom, content.data() + index * kRegion, kRegion);
      const std::vector<std::byte> before = buffer;
      const disk::Extent extent{index * kRegion, kRegion};
      hasher.Process(
          {index * kRegion, std::span(buffer).subspan(disk::kRegionHeadroom), {&extent, 1}});
      EXPECT_TRUE(std::equal(buffer.begin() + disk::kRegionHeadroom, buffer.end(),
                             before.begin() + disk::kRegionHeadroom));
    }
    ASSERT_EQ(hasher.Finish(), ReferenceRoot(content));
  } while (std::next_permutation(order.begin(), order.begin() + 3));
}

}  // namespace
}  // namespace msb::artifact
