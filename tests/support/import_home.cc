// SPDX-License-Identifier: Apache-2.0

#include "tests/support/import_home.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <stdexcept>

namespace msb::test {

namespace fs = std::filesystem;

fs::path UpperIn(const fs::path& artifact) {
  for (const auto& entry : fs::recursive_directory_iterator(artifact)) {
    if (entry.path().filename() == "upper.ext4" || entry.path().extension() == ".raw") {
      return entry.path();
    }
  }
  throw std::runtime_error("no upper in " + artifact.native());
}

ImportHome::ImportHome() {
  MakeSparseFile(dir_ / "base.img", 64 << 10, {{0, Noise(4096, 1)}});
  MakeStoppedSandbox(client_, "baseline", dir_ / "base.img");
  Snapshot::Create(ctx_, "baseline", {.name = "s", .record_integrity = true}, client_);
  for (const auto& [file, content] : MakeSampleImage("installed:1").files) {
    WriteFile(home_ / "cache" / file, content);
  }
  WriteFile(dest_ / "mine", "not a snapshot");
}

void ImportHome::TearDown() {
  const SampleArchive sound = MakeSampleArchive(SampleLayout::kInventory, {.seed = 99});
  ExpectSound(Import(sound.Tar()), sound.snapshots[0]);
}

std::string ImportHome::Stored(const std::string& archive) {
  // Do not truncate the old file: ext4 flushes truncated files, which slows down thousands of
  // cases.
  fs::remove(archives_ / "archive");
  WriteFile(archives_ / "archive", archive);
  return archives_ / "archive";
}

SnapshotHandle ImportHome::Import(const std::string& archive, const std::string& dest) {
  return Snapshot::Import(ctx_, Stored(archive), dest, client_);
}

void ImportHome::ExpectPathRefused(const std::string& path, std::initializer_list<ErrorKind> kinds,
                                   const std::string& dest, const Context& ctx) {
  const auto before = ListTree(dir_.path());
  try {
    const SnapshotHandle handle = Snapshot::Import(ctx, path, dest, client_);
    ADD_FAILURE() << "imported to " << handle.Path();
    // Remove it, or the next case of a table would be refused because it exists.
    for (const SnapshotHandle& other : Snapshot::List(ctx_, client_)) {
      const fs::path place = fs::path(other.Path()).lexically_relative(dir_.path());
      if (!before.contains(place)) fs::remove_all(other.Path());
    }
    Snapshot::Reindex(ctx_, "", client_);
    return;
  } catch (const Error& e) {
    EXPECT_NE(std::find(kinds.begin(), kinds.end(), e.kind()), kinds.end())
        << ErrorKindName(e.kind()) << ": " << e.what();
    if (e.kind() != ErrorKind::kCancelled) {
      EXPECT_THAT(e.what(), testing::HasSubstr(path));
    }
  }
  EXPECT_EQ(ListTree(dir_.path()), before);
}

void ImportHome::ExpectRefused(const std::string& archive, std::initializer_list<ErrorKind> kinds,
                               const std::string& dest) {
  ExpectPathRefused(Stored(archive), kinds, dest);
}

void ImportHome::ExpectRefused(const std::string& archive, ErrorKind kind,
                               const std::string& dest) {
  ExpectRefused(archive, {kind}, dest);
}

void ImportHome::ExpectSound(const SnapshotHandle& handle, const SampleSnapshot& sample) {
  EXPECT_EQ(handle.Digest(), sample.digest);
  EXPECT_EQ(handle.ParentDigest(), sample.options.parent);
  const SnapshotArtifact artifact = handle.Open(ctx_);
  EXPECT_EQ(artifact.Digest(), sample.digest);
  EXPECT_EQ(artifact.Parent(), sample.options.parent);
  EXPECT_EQ(artifact.SizeBytes(), sample.upper.size());
  EXPECT_EQ(artifact.Labels(), sample.options.labels);
  EXPECT_EQ(artifact.ImageRef(), sample.options.image.ref);
  EXPECT_EQ(artifact.ImageManifestDigest(), sample.options.image.manifest_digest);
  const fs::path upper = UpperIn(artifact.Path());
  EXPECT_TRUE(ReadFile(upper) == sample.upper) << upper;
  if (sample.options.sparse) {
    EXPECT_EQ(ExtentsOf(upper), SampleExtents());
  }
  const SnapshotVerifyReport report = artifact.Verify(ctx_);
  EXPECT_EQ(report.upper.kind, sample.integrity ? "verified" : "not_recorded");
  EXPECT_EQ(report.upper.digest, sample.integrity.value_or(""));
}

}  // namespace msb::test
