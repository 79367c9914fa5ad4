// SPDX-License-Identifier: Apache-2.0
//
// Homes that were moved or copied or have several names, and artifacts that share a digest.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>

#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::UnorderedElementsAre;

void CopyTree(const fs::path& from, const fs::path& to) {
  fs::copy(from, to, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
}

std::vector<std::string> PathsIn(Client& client) {
  std::vector<std::string> paths;
  for (const auto& handle : Snapshot::List(Context::Background(), client)) {
    paths.push_back(handle.Path());
  }
  return paths;
}

class MovedHomeTest : public ::testing::Test {
 protected:
  MovedHomeTest() {
    Client client = LocalClient(home_);
    MakeStoppedSandbox(client, "baseline", dir_ / "base.img");
  }

  std::string Create(const std::string& name) {
    Client client = LocalClient(home_);
    return Snapshot::Create(ctx_, "baseline", {.name = name}, client).Digest();
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path home_ = dir_ / "home";
  const fs::path copy_ = dir_ / "copy";
  std::vector<std::string> log_;
};

TEST_F(MovedHomeTest, HandlesOfACopiedHomeNeverReachIntoTheOriginal) {
  const std::string digest = Create("a");
  Create("b");
  CopyTree(home_, copy_);
  Client copy = LocalClient(copy_, &log_);
  EXPECT_THAT(PathsIn(copy), UnorderedElementsAre(copy_ / "snapshots/a", copy_ / "snapshots/b"));
  Snapshot::Remove(ctx_, digest, false, copy);
  for (const auto& handle : Snapshot::List(ctx_, copy)) handle.Remove(ctx_, false);
  EXPECT_TRUE(fs::is_empty(copy_ / "snapshots"));
  EXPECT_TRUE(fs::exists(home_ / "snapshots/a/snapshot.json"));
  EXPECT_TRUE(fs::exists(home_ / "snapshots/b/snapshot.json"));
  Client original = LocalClient(home_, &log_);
  EXPECT_EQ(Snapshot::List(ctx_, original).size(), 2U);
  EXPECT_THAT(log_, testing::IsEmpty());
}

TEST_F(MovedHomeTest, HandlesOfAMovedHomeOpenVerifyAndRemove) {
  const std::string digest = Create("a");
  fs::rename(home_, copy_);
  Client moved = LocalClient(copy_, &log_);
  const auto handle = Snapshot::List(ctx_, moved).at(0);
  EXPECT_EQ(handle.Path(), copy_ / "snapshots/a");
  EXPECT_EQ(handle.Open(ctx_).Digest(), digest);
  EXPECT_EQ(Snapshot::Get(ctx_, copy_ / "snapshots/a", moved).Digest(), digest);
  EXPECT_EQ(Snapshot::Get(ctx_, digest, moved).Open(ctx_).Verify(ctx_).upper.digest,
            handle.Open(ctx_).Verify(ctx_).upper.digest);
  handle.Remove(ctx_, false);
  EXPECT_TRUE(Snapshot::List(ctx_, moved).empty());
}

// A runtime's database has absolute paths.
TEST_F(MovedHomeTest, ACopyOfARuntimesHomeMeansItsOwnSnapshots) {
  for (const std::string release : {"0.6.6", "0.6.18"}) {
    SCOPED_TRACE(release);
    const TempDir dir;
    const fs::path home = UnpackFixtureHome(release, dir.path());
    {
      Client client = LocalClient(home);
      Snapshot::Reindex(ctx_, "", client);
      EXPECT_EQ(Snapshot::Get(ctx_, "plain", client).Path(), home / "snapshots/plain");
    }
    CopyTree(home, dir / "copy");
    Client copy = LocalClient(dir / "copy");
    const auto handles = Snapshot::List(ctx_, copy);
    ASSERT_EQ(handles.size(), 2U);
    for (const auto& handle : handles) {
      EXPECT_EQ(fs::path(handle.Path()).parent_path(), dir / "copy/snapshots");
      EXPECT_EQ(Snapshot::Get(ctx_, handle.Digest(), copy).Path(), handle.Path());
      EXPECT_EQ(Snapshot::Get(ctx_, handle.Path(), copy).Digest(), handle.Digest());
    }
    fs::remove_all(dir / "copy/snapshots/plain");
    EXPECT_EQ(Snapshot::List(ctx_, copy).size(), 1U) << "the other one is in the original only";
    EXPECT_MSB_ERROR(Snapshot::Get(ctx_, "plain", copy), ErrorKind::kSnapshotNotFound,
                     "no snapshot 'plain' in the index of ", "/copy", "call Reindex");
    Snapshot::List(ctx_, copy).at(0).Remove(ctx_, true);
    EXPECT_TRUE(Snapshot::List(ctx_, copy).empty());
    EXPECT_TRUE(fs::exists(home / "snapshots/labelled"));
    EXPECT_TRUE(fs::exists(home / "snapshots/plain"));
  }
}

TEST_F(MovedHomeTest, AMovedHomeOfARuntimeWithGroupsOpensItsMembers) {
  const TempDir dir;
  const fs::path home = UnpackFixtureHome("0.7.2", dir.path());
  {
    Client client = LocalClient(home);
    Snapshot::Reindex(ctx_, "", client);
  }
  fs::rename(home, dir / "moved");
  Client moved = LocalClient(dir / "moved");
  ASSERT_EQ(Snapshot::List(ctx_, moved).size(), 2U);
  for (const auto& handle : Snapshot::List(ctx_, moved)) {
    EXPECT_TRUE(handle.Path().starts_with((dir / "moved/snapshots/baseline/").native()));
    EXPECT_EQ(handle.Open(ctx_).Digest(), handle.Digest());
  }
}

// cp -al makes second hard links to the files of the index.
TEST_F(MovedHomeTest, ACopyMadeOfHardLinksDoesNotShareTheIndex) {
  Create("a");
  Client before = LocalClient(home_, &log_);
  EXPECT_EQ(Snapshot::List(ctx_, before).size(), 1U);
  fs::copy(home_, copy_, fs::copy_options::recursive | fs::copy_options::create_hard_links);
  Client copy = LocalClient(copy_, &log_);
  Snapshot::Create(ctx_, "baseline", {.name = "in-copy"}, copy);
  Snapshot::Create(ctx_, "baseline", {.name = "in-original"}, before);
  EXPECT_EQ(fs::hard_link_count(home_ / "db/snapshots.db"), 1U);
  EXPECT_EQ(fs::hard_link_count(copy_ / "db/snapshots.db"), 1U);
  for (const fs::path& home : {home_, copy_}) {
    Client fresh = LocalClient(home, &log_);
    EXPECT_THAT(PathsIn(fresh), UnorderedElementsAre(home / "snapshots/a",
                                                     home / (home == home_ ? "snapshots/in-original"
                                                                           : "snapshots/in-copy")));
    EXPECT_EQ(Snapshot::Reindex(ctx_, "", fresh), 2U);
  }
  EXPECT_THAT(log_, testing::IsEmpty());
}

TEST_F(MovedHomeTest, SymbolicLinksToAHomeAreTheSameHome) {
  const std::string digest = Create("a");
  fs::create_directory_symlink(home_, dir_ / "link");
  Client linked = LocalClient(dir_ / "link", &log_);
  EXPECT_THAT(PathsIn(linked), UnorderedElementsAre(dir_ / "link/snapshots/a"));
  EXPECT_EQ(Snapshot::Get(ctx_, home_ / "snapshots/a", linked).Digest(), digest);
  Snapshot::Create(ctx_, "baseline", {.path = home_ / "snapshots/b"}, linked);
  Client direct = LocalClient(home_, &log_);
  EXPECT_THAT(PathsIn(direct), UnorderedElementsAre(home_ / "snapshots/a", home_ / "snapshots/b"));
  EXPECT_EQ(Snapshot::Get(ctx_, dir_ / "link/snapshots/b", direct).Name(), "b");
  Snapshot::Remove(ctx_, dir_ / "link/snapshots/b", false, direct);
  EXPECT_THAT(PathsIn(linked), UnorderedElementsAre(dir_ / "link/snapshots/a"));
  EXPECT_EQ(Snapshot::Reindex(ctx_, home_ / "snapshots", linked), 1U);
  EXPECT_THAT(PathsIn(linked), UnorderedElementsAre(dir_ / "link/snapshots/a"));
  EXPECT_THAT(log_, testing::IsEmpty());
}

TEST_F(MovedHomeTest, SymbolicLinksToTheDirectoriesOfAHomeAreThatHome) {
  Create("a");
  fs::create_directory(dir_ / "disk");
  for (const char* name : {"snapshots", "db"}) {
    fs::rename(home_ / name, dir_ / "disk" / name);
    fs::create_directory_symlink(dir_ / "disk" / name, home_ / name);
  }
  Client client = LocalClient(home_, &log_);
  const auto handle = Snapshot::Get(ctx_, dir_ / "disk/snapshots/a", client);
  EXPECT_EQ(handle.Path(), home_ / "snapshots/a");
  Snapshot::Create(ctx_, "baseline", {.path = dir_ / "disk/snapshots/b"}, client);
  EXPECT_THAT(PathsIn(client), UnorderedElementsAre(home_ / "snapshots/a", home_ / "snapshots/b"));
  Snapshot::Export(ctx_, "a", dir_ / "a.tar", {}, client);
  EXPECT_MSB_ERROR(Snapshot::Import(ctx_, dir_ / "a.tar", dir_ / "disk/snapshots", client),
                   ErrorKind::kSnapshotAlreadyExists, "already exists, named 'a'",
                   "/home/snapshots/a", "use it, or remove it first");
  Snapshot::Remove(ctx_, dir_ / "disk/snapshots/b", false, client);
  EXPECT_THAT(PathsIn(client), UnorderedElementsAre(home_ / "snapshots/a"));
  EXPECT_THAT(log_, testing::IsEmpty());
}

TEST_F(MovedHomeTest, TwoArtifactsOfOneDigestAreFoundAndRemovedOneByOne) {
  const std::string digest = Create("a");
  CopyTree(home_ / "snapshots/a", home_ / "snapshots/b");
  CopyTree(home_ / "snapshots/a", dir_ / "elsewhere");
  Client client = LocalClient(home_, &log_);
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client), 2U);
  EXPECT_EQ(Snapshot::Reindex(ctx_, home_ / "snapshots", client), 2U);
  EXPECT_THAT(PathsIn(client), UnorderedElementsAre(home_ / "snapshots/a", home_ / "snapshots/b"));
  for (const std::string name : {"a", "b"}) {
    EXPECT_EQ(Snapshot::Get(ctx_, name, client).Path(), home_ / "snapshots" / name);
    EXPECT_EQ(Snapshot::Get(ctx_, home_ / "snapshots" / name, client).Name(), name);
  }
  const auto a = Snapshot::Get(ctx_, "a", client);
  const auto b = Snapshot::Get(ctx_, "b", client);
  b.Remove(ctx_, false);
  EXPECT_THAT(PathsIn(client), UnorderedElementsAre(home_ / "snapshots/a"));
  EXPECT_EQ(a.Open(ctx_).Digest(), digest);
  EXPECT_EQ(Snapshot::Get(ctx_, digest, client).Path(), home_ / "snapshots/a");
  a.Remove(ctx_, false);
  EXPECT_TRUE(Snapshot::List(ctx_, client).empty());
  EXPECT_TRUE(fs::exists(dir_ / "elsewhere/snapshot.json"));
}

TEST_F(MovedHomeTest, TwoArtifactsOfOneDigestAreFoundInARuntimesIndexToo) {
  const TempDir dir;
  const fs::path home = UnpackFixtureHome("0.6.18", dir.path());
  Client client = LocalClient(home, &log_);
  Snapshot::Reindex(ctx_, "", client);
  CopyTree(home / "snapshots/plain", home / "snapshots/again");
  const auto again = Snapshot::Get(ctx_, "again", client);
  EXPECT_EQ(again.Path(), home / "snapshots/again");
  EXPECT_EQ(Snapshot::Get(ctx_, home / "snapshots/again", client).Name(), "again");
  EXPECT_EQ(Snapshot::Get(ctx_, "plain", client).Path(), home / "snapshots/plain");
  again.Remove(ctx_, true);
  EXPECT_FALSE(fs::exists(home / "snapshots/again"));
  EXPECT_EQ(Snapshot::Get(ctx_, "plain", client).Path(), home / "snapshots/plain");
}

// The children use the other copy.
TEST_F(MovedHomeTest, OneOfTwoCopiesOfAParentMayBeRemoved) {
  Client client(Config{.home = home_, .backend = "local", .upper_format = DiskFormat::kQcow2});
  CreateSandbox(ctx_, "q", {WithImage(dir_ / "base.img")}, client).Close();
  Snapshot::Create(ctx_, "q", {.name = "parent"}, client);
  Snapshot::Create(ctx_, "q", {.name = "child"}, client);
  CopyTree(home_ / "snapshots/parent", home_ / "snapshots/copy");
  std::ignore = Snapshot::Open(ctx_, "copy", client);
  Snapshot::Remove(ctx_, "parent", false, client);
  EXPECT_EQ(Snapshot::Open(ctx_, "child", client).Verify(ctx_).upper.kind,
            Snapshot::Open(ctx_, "copy", client).Verify(ctx_).upper.kind);
  EXPECT_MSB_ERROR(
      Snapshot::Remove(ctx_, "copy", false, client), ErrorKind::kSnapshotHasChildren,
      "copy (sha256:", "is the parent of child (sha256:", "remove these first, or use force");
}

TEST_F(MovedHomeTest, AHandleRemovesTheArtifactThatItDescribes) {
  const std::string digest = Create("a");
  Client client = LocalClient(home_, &log_);
  const auto handle = Snapshot::Get(ctx_, "a", client);
  fs::rename(home_ / "snapshots/a", home_ / "snapshots/kept");
  Create("a");  // Another snapshot at the same path.
  std::ignore = Snapshot::Open(ctx_, "kept", client);
  handle.Remove(ctx_, false);
  EXPECT_THAT(PathsIn(client), UnorderedElementsAre(home_ / "snapshots/a"));
  EXPECT_FALSE(fs::exists(home_ / "snapshots/kept"));
  EXPECT_NE(Snapshot::Get(ctx_, "a", client).Digest(), digest);
}

}  // namespace
}  // namespace msb::test
