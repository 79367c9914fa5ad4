// SPDX-License-Identifier: Apache-2.0

#include "src/handle/catalog.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/sqlite.h"
#include "src/base/staging.h"
#include "tests/support/archive_sample.h"
#include "tests/support/support.h"

namespace msb::handle {
namespace {

namespace fs = std::filesystem;
using artifact::Artifact;
using index::Row;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

// Returns a snapshot that was created on this day of November 2026.
test::SampleSnapshot SnapshotOf(std::uint32_t day, const std::optional<std::string>& parent = {}) {
  return test::MakeSampleSnapshot(
      test::SampleLayout::kInventory,
      {.seed = day, .parent = parent, .edit = [day](test::Json& manifest) {
         manifest["created_at"] = fmt::format("2026-11-{:02}T12:00:00Z", day);
       }});
}

Artifact WriteArtifact(const fs::path& path, const test::SampleSnapshot& sample) {
  test::WriteFile(path / "snapshot.json", sample.manifest);
  test::WriteFile(path / "upper.ext4", sample.upper);
  return artifact::OpenArtifactAt(path);
}

class CatalogTest : public testing::Test {
 protected:
  CatalogTest() {
    fs::create_directories(snapshots_);
    // Creates the index while there are no artifacts. Later ones must be recorded in it.
    catalog_.List(ctx_);
  }

  Artifact Write(const std::string& name, const test::SampleSnapshot& sample) const {
    return WriteArtifact(snapshots_ / name, sample);
  }
  // Writes an artifact and records it.
  Artifact Add(const std::string& name, const test::SampleSnapshot& sample) {
    Artifact artifact = Write(name, sample);
    catalog_.Record(ctx_, artifact);
    return artifact;
  }

  // Returns the names of the indexed snapshots.
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const Row& row : catalog_.List(ctx_)) names.push_back(row.name.value_or(""));
    return names;
  }

  Context Cancelled() const {
    const auto [ctx, cancel] = ctx_.WithCancel();
    cancel();
    return ctx;
  }

  const Context ctx_ = test::Soon();
  test::TempDir dir_;
  const fs::path home_ = dir_ / "home";
  const fs::path snapshots_ = home_ / "snapshots";
  std::vector<std::string> log_;
  Catalog catalog_{base::Home({.home = home_}),
                   [this](std::string_view message) { log_.emplace_back(message); }};
};

TEST_F(CatalogTest, GetFindsASnapshotByItsNameDigestAndPath) {
  const Artifact artifact = Add("a", SnapshotOf(1));
  Add("b", SnapshotOf(2));
  for (const std::string& key :
       {std::string("a"), artifact.manifest.digest, artifact.path.native()}) {
    const Row row = catalog_.Get(ctx_, key);
    EXPECT_EQ(row.name, "a") << key;
    EXPECT_EQ(row.digest, artifact.manifest.digest) << key;
    EXPECT_EQ(row.artifact_path, artifact.path) << key;
  }
}

TEST_F(CatalogTest, GetRefusesASnapshotThatIsNotInTheIndex) {
  Add("a", SnapshotOf(1));
  Write("b", SnapshotOf(2));
  for (const std::string& key :
       {std::string("b"), "sha256:" + std::string(64, '0'), (snapshots_ / "b").native()}) {
    EXPECT_MSB_ERROR(catalog_.Get(ctx_, key), ErrorKind::kSnapshotNotFound,
                     "no snapshot '" + key + "' in the index of " + home_.native(), "call Reindex");
  }
}

TEST_F(CatalogTest, ListReturnsTheNewestFirst) {
  Add("b", SnapshotOf(2));
  Add("c", SnapshotOf(3));
  Add("a", SnapshotOf(1));
  EXPECT_THAT(Names(), ElementsAre("c", "b", "a"));
}

TEST_F(CatalogTest, ChildrenAreTheSnapshotsThatNameTheParent) {
  const Artifact parent = Add("parent", SnapshotOf(1));
  Add("child", SnapshotOf(2, parent.manifest.digest));
  Add("other", SnapshotOf(3));
  const std::vector<Row> children = catalog_.ChildrenOf(ctx_, parent);
  ASSERT_EQ(children.size(), 1U);
  EXPECT_EQ(children[0].name, "child");
}

TEST_F(CatalogTest, RecordBringsTheRowOfAReplacedArtifactUpToDate) {
  const Artifact old = Add("a", SnapshotOf(1));
  const Artifact replacement = Write("a", SnapshotOf(2));
  EXPECT_EQ(catalog_.Record(ctx_, replacement).digest, replacement.manifest.digest);
  ASSERT_EQ(catalog_.List(ctx_).size(), 1U);
  EXPECT_EQ(catalog_.Get(ctx_, "a").digest, replacement.manifest.digest);
  EXPECT_MSB_ERROR(catalog_.Get(ctx_, old.manifest.digest), ErrorKind::kSnapshotNotFound,
                   "no snapshot '" + old.manifest.digest + "'");
}

TEST_F(CatalogTest, RecordLogsThatItFailed) {
  const Artifact artifact = Write("a", SnapshotOf(1));
  EXPECT_EQ(catalog_.Record(Cancelled(), artifact).digest, artifact.manifest.digest);
  EXPECT_THAT(log_, ElementsAre(AllOf(HasSubstr("could not be updated with"),
                                      HasSubstr(artifact.path.native()), HasSubstr("cancelled"))));
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(CatalogTest, RecordPublishedAddsARowThoughTheContextHasEnded) {
  const Artifact artifact = Write("a", SnapshotOf(1));
  EXPECT_EQ(catalog_.RecordPublished(Cancelled(), artifact).name, "a");
  EXPECT_THAT(log_, IsEmpty());
  EXPECT_THAT(Names(), ElementsAre("a"));
}

TEST_F(CatalogTest, RecordPublishedGivesUpOnALockedIndex) {
  const Artifact artifact = Write("a", SnapshotOf(1));
  base::Database db(home_ / "db/snapshots.db", base::Database::Mode::kReadWrite);
  db.Execute("BEGIN IMMEDIATE");
  const Context soon = ctx_.WithTimeout(std::chrono::milliseconds(20));
  EXPECT_EQ(catalog_.RecordPublished(soon, artifact).digest, artifact.manifest.digest);
  EXPECT_THAT(log_, ElementsAre(AllOf(HasSubstr((snapshots_ / "a").native() + " is complete"),
                                      HasSubstr("locked"), HasSubstr("call Reindex"))));
  db.Execute("ROLLBACK");
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(CatalogTest, RecordCopiesAddsEachArtifactAndReturnsTheLastRow) {
  const std::array<Artifact, 2> artifacts = {Write("a", SnapshotOf(1)), Write("b", SnapshotOf(2))};
  EXPECT_EQ(catalog_.RecordCopies(ctx_, artifacts).name, "b");
  EXPECT_THAT(Names(), UnorderedElementsAre("a", "b"));
}

// The database of release 0.6.18 has one row for each digest.
TEST_F(CatalogTest, RecordCopiesLeavesTheOnlyRowToAnArtifactThatExists) {
  const fs::path home = test::UnpackFixtureHome("0.6.18", dir_ / "fixture");
  const fs::path plain = home / "snapshots/plain";
  Catalog catalog(base::Home({.home = home}), test::Unexpected);
  const std::string digest = catalog.Get(ctx_, "plain").digest;
  fs::copy(plain, home / "snapshots/copy", fs::copy_options::recursive);
  const std::array<Artifact, 1> copy = {artifact::OpenArtifactAt(home / "snapshots/copy")};

  catalog.RecordCopies(ctx_, copy);
  EXPECT_EQ(catalog.Get(ctx_, digest).artifact_path, plain);
  catalog.RecordPublished(ctx_, copy[0]);
  EXPECT_EQ(catalog.Get(ctx_, digest).artifact_path, copy[0].path);
  catalog.Record(ctx_, artifact::OpenArtifactAt(plain));
  EXPECT_EQ(catalog.Get(ctx_, digest).artifact_path, plain);
  fs::remove_all(plain);
  catalog.RecordCopies(ctx_, copy);
  EXPECT_EQ(catalog.Get(ctx_, digest).artifact_path, copy[0].path);
}

TEST_F(CatalogTest, ReindexAddsNewArtifactsAndDropsTheRowsOfMissingOnes) {
  Add("gone", SnapshotOf(1));
  fs::remove_all(snapshots_ / "gone");
  Write("a", SnapshotOf(2));
  Write("b", SnapshotOf(3));
  EXPECT_EQ(catalog_.Reindex(ctx_, snapshots_), 2U);
  EXPECT_THAT(Names(), ElementsAre("b", "a"));
}

TEST_F(CatalogTest, ReindexOfADirectoryKeepsTheRowsOfOthers) {
  Add("a", SnapshotOf(1));
  WriteArtifact(dir_ / "elsewhere/b", SnapshotOf(2));
  EXPECT_EQ(catalog_.Reindex(ctx_, dir_ / "elsewhere"), 1U);
  EXPECT_THAT(Names(), ElementsAre("b", "a"));
}

TEST_F(CatalogTest, RemoveDeletesTheArtifactAndItsRow) {
  const Artifact by_digest = Add("by_digest", SnapshotOf(1));
  const Artifact by_path = Add("by_path", SnapshotOf(2));
  Add("by_name", SnapshotOf(3));
  Add("kept", SnapshotOf(4));
  catalog_.Remove(ctx_, "by_name", /*force=*/false);
  EXPECT_THAT(Names(), ElementsAre("kept", "by_path", "by_digest"));
  catalog_.Remove(ctx_, by_path.path, /*force=*/false);
  catalog_.Remove(ctx_, by_digest.manifest.digest, /*force=*/false);
  EXPECT_THAT(Names(), ElementsAre("kept"));
  for (const auto& entry : fs::directory_iterator(snapshots_)) {
    EXPECT_EQ(entry.path().filename(), "kept");
  }
  EXPECT_MSB_ERROR(catalog_.Remove(ctx_, "by_name", /*force=*/true), ErrorKind::kSnapshotNotFound,
                   "no snapshot 'by_name' in " + snapshots_.native());
}

TEST_F(CatalogTest, RemoveOfARowFollowsTheArtifactThatWasMoved) {
  const Artifact artifact = Add("a", SnapshotOf(1));
  const Row row = catalog_.Get(ctx_, "a");
  fs::rename(snapshots_ / "a", snapshots_ / "moved");
  catalog_.Record(ctx_, artifact::OpenArtifactAt(snapshots_ / "moved"));
  Add("a", SnapshotOf(2));
  catalog_.Remove(ctx_, row, /*force=*/false);
  EXPECT_FALSE(fs::exists(snapshots_ / "moved"));
  EXPECT_THAT(Names(), ElementsAre("a"));
  EXPECT_EQ(catalog_.Get(ctx_, "a").digest, SnapshotOf(2).digest);
}

TEST_F(CatalogTest, RemoveRefusesAParentUnlessForced) {
  const Artifact parent = Add("parent", SnapshotOf(1));
  Add("child", SnapshotOf(2, parent.manifest.digest));
  EXPECT_MSB_ERROR(catalog_.Remove(ctx_, "parent", /*force=*/false),
                   ErrorKind::kSnapshotHasChildren, "parent (" + parent.manifest.digest + ")",
                   "is the parent of child (", "remove these first, or use force");
  EXPECT_THAT(Names(), ElementsAre("child", "parent"));
  EXPECT_TRUE(fs::exists(parent.path));
  catalog_.Remove(ctx_, "parent", /*force=*/true);
  EXPECT_THAT(Names(), ElementsAre("child"));
  EXPECT_FALSE(fs::exists(parent.path));
}

TEST_F(CatalogTest, RemoveFindsAndIndexesChildrenThatTheIndexLacks) {
  const Artifact parent = Add("parent", SnapshotOf(1));
  Write("child", SnapshotOf(2, parent.manifest.digest));
  EXPECT_MSB_ERROR(catalog_.Remove(ctx_, "parent", /*force=*/false),
                   ErrorKind::kSnapshotHasChildren, "parent (" + parent.manifest.digest + ")",
                   "is the parent of child (", "remove these first, or use force");
  EXPECT_THAT(Names(), ElementsAre("child", "parent"));
  EXPECT_TRUE(fs::exists(parent.path));
}

TEST_F(CatalogTest, RemoveFindsChildrenBesideAParentElsewhere) {
  const fs::path dir = dir_ / "elsewhere";
  const Artifact parent = WriteArtifact(dir / "parent", SnapshotOf(1));
  WriteArtifact(dir / "child", SnapshotOf(2, parent.manifest.digest));
  EXPECT_MSB_ERROR(catalog_.Remove(ctx_, parent.path, /*force=*/false),
                   ErrorKind::kSnapshotHasChildren, "is the parent of child (", "use force");
  EXPECT_TRUE(fs::exists(parent.path));
}

TEST_F(CatalogTest, RemoveKeepsASnapshotThatAnUnreadableSandboxMayUse) {
  const Artifact artifact = Add("a", SnapshotOf(1));
  const auto users = [&](std::string_view /*digest*/) {
    return Catalog::SandboxUsers{.unreadable = Error(ErrorKind::kIO, "cannot open worker")};
  };
  EXPECT_MSB_ERROR(catalog_.Remove(ctx_, "a", /*force=*/false, users), ErrorKind::kIO,
                   "a (" + artifact.manifest.digest + ") is not removed",
                   "a sandbox that may need it cannot be read: cannot open worker",
                   "make that sandbox readable, or use force");
  catalog_.Remove(ctx_, "a", /*force=*/true, users);
  EXPECT_FALSE(fs::exists(artifact.path));
}

TEST_F(CatalogTest, RemoveRefusesASnapshotThatSandboxesUseUnlessForced) {
  const Artifact artifact = Add("a", SnapshotOf(1));
  std::vector<std::string> asked;
  const auto users = [&](std::string_view digest) {
    asked.emplace_back(digest);
    return Catalog::SandboxUsers{.names = {"worker"}};
  };
  EXPECT_MSB_ERROR(catalog_.Remove(ctx_, "a", /*force=*/false, users),
                   ErrorKind::kSnapshotHasChildren, "a (" + artifact.manifest.digest + ")",
                   ": worker;", "remove them first, or use force");
  EXPECT_THAT(asked, ElementsAre(artifact.manifest.digest));
  EXPECT_TRUE(fs::exists(artifact.path));
  catalog_.Remove(ctx_, "a", /*force=*/true, users);
  EXPECT_FALSE(fs::exists(artifact.path));
}

TEST_F(CatalogTest, RemoveChangesNothingWhileAnotherCallUsesTheArtifact) {
  Add("a", SnapshotOf(1));
  const base::LockedDirectory other = base::LockedDirectory::Open(ctx_, snapshots_, "a");
  const auto before = test::ListTree(snapshots_);
  EXPECT_MSB_ERROR(catalog_.Remove(ctx_.WithTimeout(std::chrono::milliseconds(20)), "a", false),
                   ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_EQ(test::ListTree(snapshots_), before);
  EXPECT_THAT(Names(), ElementsAre("a"));
}

}  // namespace
}  // namespace msb::handle
