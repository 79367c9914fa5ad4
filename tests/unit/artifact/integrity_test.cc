// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/integrity.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "src/base/digest.h"
#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::artifact {
namespace {

using namespace std::string_literals;
using test::MakeSparseFile;
using test::Noise;

constexpr std::array<std::string_view, 3> kAlgorithms = {kSha256, kSparseSha256, kFileMerkle};

std::string DigestOf(const std::filesystem::path& path, std::string_view algorithm,
                     const Context& ctx = Context::Background()) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const Integrity found =
      ComputeIntegrity(ctx, fd.get(), std::filesystem::file_size(path), algorithm);
  EXPECT_EQ(found.algorithm, algorithm);
  return found.digest;
}

// Implements msb-sparse-sha256-v1 as docs/formats.md defines it.
std::string ReferenceSparseSha256(const std::string& content) {
  std::string bytes = "msb-sparse-sha256-v1\0"s;
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>(static_cast<std::uint64_t>(content.size()) >> (8 * i) & 0xff);
  }
  return base::Sha256Digest(bytes + content);
}

TEST(IntegrityTest, MatchesTheIntegrityThatReleasesRecorded) {
  const test::TempDir dir;
  const auto upper =
      test::UnpackFixtureHome("0.6.6", dir.path()) / "snapshots" / "labelled" / "upper.ext4";
  EXPECT_EQ(DigestOf(upper, kSparseSha256),
            "sha256:917062a46c3df41088df6127163ac59ce9ebcf1981da05b6101e03e120df14b5");
  EXPECT_EQ(DigestOf(upper, kFileMerkle),
            "blake3:f7e0d8f21477e5147305333e9bf7343ae63bd27d908ed0a85ccf16f249e99397");
  EXPECT_EQ(DigestOf(upper, kSha256), base::Sha256Digest(test::ReadFile(upper)));
}

TEST(IntegrityTest, GivesTheHashesOfTheDefinitionForEverySize) {
  const test::TempDir dir;
  for (const std::size_t size : {0U, 1U, 65535U, 65536U, 65537U, (2U << 20) - 1, 2U << 20,
                                 (2U << 20) + 1, (9U << 20) + 123}) {
    const std::string content = Noise(size, 1);
    test::WriteFile(dir / "disk", content);
    EXPECT_EQ(DigestOf(dir / "disk", kSha256), base::Sha256Digest(content)) << size;
    EXPECT_EQ(DigestOf(dir / "disk", kSparseSha256), ReferenceSparseSha256(content)) << size;
  }
}

TEST(IntegrityTest, ReadsHolesAsZeros) {
  const test::TempDir dir;
  const std::size_t size = (7 << 20) + 777;
  MakeSparseFile(dir / "disk", size,
                 {{4096, Noise(10, 1)},
                  {(2 << 20) - 5, Noise(70'000, 2)},
                  {(6 << 20) + 1, Noise(1 << 20, 3)}});
  const std::string content = test::ReadFile(dir / "disk");
  ASSERT_EQ(content.size(), size);
  EXPECT_EQ(DigestOf(dir / "disk", kSha256), base::Sha256Digest(content));
  EXPECT_EQ(DigestOf(dir / "disk", kSparseSha256), ReferenceSparseSha256(content));
}

TEST(IntegrityTest, DoesNotDependOnWhereTheHolesAre) {
  const test::TempDir dir;
  MakeSparseFile(dir / "sparse", 5 << 20, {{1 << 20, Noise(4096, 1)}, {3 << 20, Noise(9999, 2)}});
  test::WriteFile(dir / "dense", test::ReadFile(dir / "sparse"));
  ASSERT_NE(test::ExtentsOf(dir / "sparse"), test::ExtentsOf(dir / "dense"));
  for (const std::string_view algorithm : kAlgorithms) {
    EXPECT_EQ(DigestOf(dir / "sparse", algorithm), DigestOf(dir / "dense", algorithm)) << algorithm;
  }
}

TEST(IntegrityTest, ReadsOnlyTheFirstBytesOfALongerFile) {
  const test::TempDir dir;
  const std::string content = Noise(300'000, 1);
  test::WriteFile(dir / "short", content.substr(0, 200'000));
  test::WriteFile(dir / "long", content);
  const base::UniqueFd fd(open((dir / "long").c_str(), O_RDONLY | O_CLOEXEC));
  for (const std::string_view algorithm : kAlgorithms) {
    const Integrity found = ComputeIntegrity(Context::Background(), fd.get(), 200'000, algorithm);
    EXPECT_EQ(found.digest, DigestOf(dir / "short", algorithm)) << algorithm;
  }
}

TEST(IntegrityTest, ReportsProgress) {
  const test::TempDir dir;
  MakeSparseFile(dir / "disk", 64 << 20, {{0, Noise(3 << 20, 1)}, {50 << 20, Noise(4 << 20, 2)}});
  std::vector<Progress> reports;
  const Context ctx = Context::Background().WithProgress([&](const Progress& progress) {
    EXPECT_EQ(progress.phase, "verify");
    EXPECT_EQ(progress.bytes_total, 7U << 20);
    reports.push_back(progress);
  });
  DigestOf(dir / "disk", kFileMerkle, ctx);
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back().bytes_done, 7U << 20);
}

TEST(IntegrityTest, RefusesAnAlgorithmThatItDoesNotKnow) {
  const test::TempDir dir;
  test::WriteFile(dir / "disk", "content");
  for (const char* algorithm : {"", "md5", "SHA256", "msb-sparse-sha256-v2"}) {
    EXPECT_MSB_ERROR(DigestOf(dir / "disk", algorithm), ErrorKind::kUnsupportedOperation,
                     "integrity algorithm '" + std::string(algorithm) + "' is not supported",
                     "it must be sha256, ");
  }
}

TEST(IntegrityTest, EndsWhenItIsCancelled) {
  const test::TempDir dir;
  MakeSparseFile(dir / "data", 1 << 20, {{0, Noise(1 << 20, 1)}});
  // To hash this one to its end would take hours.
  MakeSparseFile(dir / "hole", std::uint64_t{1} << 40, {});
  const auto [ctx, cancel] = Context::Background().WithCancel();
  cancel();
  for (const std::string_view algorithm : kAlgorithms) {
    EXPECT_MSB_ERROR(DigestOf(dir / "data", algorithm, ctx), ErrorKind::kCancelled, "cancelled");
    EXPECT_MSB_ERROR(DigestOf(dir / "hole", algorithm, ctx), ErrorKind::kCancelled, "cancelled");
  }
}

TEST(IntegrityTest, EndsAtItsDeadlineInTheMiddleOfAHole) {
  const test::TempDir dir;
  MakeSparseFile(dir / "hole", std::uint64_t{1} << 40, {});
  for (const std::string_view algorithm : {kSha256, kSparseSha256}) {
    const Context ctx = Context::Background().WithTimeout(std::chrono::milliseconds(20));
    EXPECT_MSB_ERROR(DigestOf(dir / "hole", algorithm, ctx), ErrorKind::kCancelled,
                     "deadline exceeded");
  }
}

}  // namespace
}  // namespace msb::artifact
