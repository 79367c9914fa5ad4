// SPDX-License-Identifier: Apache-2.0
//
// The directories of a home may be symbolic links to another volume. While that is not mounted,
// nothing is known about what it holds, and the home must not count as empty.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::UnorderedElementsAre;

class MissingVolumeTest : public ::testing::Test {
 protected:
  MissingVolumeTest() {
    Client client = NewClient();
    MakeStoppedSandbox(client, "a", dir_ / "base.img");
    Snapshot::Create(ctx_, "a", {.name = "first"}, client);
    Snapshot::Create(ctx_, "a", {.name = "second"}, client);
    CreateSandbox(ctx_, "b", {WithSnapshot("first")}, client).Close();
  }

  Client NewClient() const {
    return Client({.home = home_, .backend = "local", .upper_format = DiskFormat::kQcow2});
  }

  // Moves what is at place, the home or a directory of it, to another volume, to which a link
  // leads.
  void MoveToVolume(const fs::path& place) {
    fs::create_directory(dir_ / "volume");
    fs::rename(place, dir_ / "volume" / place.filename());
    fs::create_symlink(dir_ / "volume" / place.filename(), place);
  }
  void Unmount() const { fs::rename(dir_ / "volume", dir_ / "unmounted"); }
  void Mount() const { fs::rename(dir_ / "unmounted", dir_ / "volume"); }

  void ExpectBothAreListed() const {
    Client client = NewClient();
    EXPECT_THAT(SnapshotNames(client), UnorderedElementsAre("first", "second"));
  }

  // Expects that each of the calls throws kIO, with a message that names the volume.
  void ExpectEachRefuses(
      const std::vector<std::pair<std::string, std::function<void(Client&)>>>& calls) const {
    for (const auto& [name, call] : calls) {
      SCOPED_TRACE(name);
      Client client = NewClient();
      EXPECT_MSB_ERROR(call(client), ErrorKind::kIO, "is a symbolic link to", "volume",
                       "mount or create that");
    }
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path home_ = dir_ / "home";
};

TEST_F(MissingVolumeTest, NoSnapshotGoesThatAnAbsentSandboxMayUse) {
  MoveToVolume(home_ / "sandboxes");
  Unmount();
  ExpectEachRefuses({
      {"Remove", [&](Client& c) { Snapshot::Remove(ctx_, "second", false, c); }},
      {"Prune", [&](Client& c) { Snapshot::Prune(ctx_, {.keep_last = 1}, c); }},
      {"ListSandboxes", [&](Client& c) { std::ignore = ListSandboxes(ctx_, c); }},
      {"GetSandbox", [&](Client& c) { std::ignore = GetSandbox(ctx_, "b", c); }},
      {"StartSandbox", [&](Client& c) { StartSandbox(ctx_, "b", c).Close(); }},
      {"RemoveSandbox", [&](Client& c) { RemoveSandbox(ctx_, "b", c); }},
      {"CreateSandbox",
       [&](Client& c) { std::ignore = CreateSandbox(ctx_, "c", {WithSnapshot("first")}, c); }},
      {"Create", [&](Client& c) { Snapshot::Create(ctx_, "a", {.name = "third"}, c); }},
  });
  ExpectBothAreListed();
  Mount();
  Client client = NewClient();
  EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, "first", false, client), ErrorKind::kSnapshotHasChildren,
                   "first");
}

TEST_F(MissingVolumeTest, RowsOfAbsentSnapshotsAreKept) {
  MoveToVolume(home_ / "snapshots");
  Unmount();
  ExpectEachRefuses({
      {"Remove", [&](Client& c) { Snapshot::Remove(ctx_, "second", false, c); }},
      {"force", [&](Client& c) { Snapshot::Remove(ctx_, "second", true, c); }},
      {"Prune", [&](Client& c) { Snapshot::Prune(ctx_, {.keep_last = 1}, c); }},
      {"Reindex", [&](Client& c) { Snapshot::Reindex(ctx_, "", c); }},
      {"ListDir", [&](Client& c) { std::ignore = Snapshot::ListDir(ctx_, "", c); }},
      {"Open", [&](Client& c) { std::ignore = Snapshot::Open(ctx_, "first", c); }},
      {"Export", [&](Client& c) { Snapshot::Export(ctx_, "first", dir_ / "x.tar", {}, c); }},
      {"fork",
       [&](Client& c) { std::ignore = CreateSandbox(ctx_, "c", {WithSnapshot("first")}, c); }},
      {"Create", [&](Client& c) { Snapshot::Create(ctx_, "a", {.name = "third"}, c); }},
  });
  Mount();
  ExpectBothAreListed();
  Client client = NewClient();
  EXPECT_EQ(Snapshot::Open(ctx_, "second", client).Verify(ctx_).upper.kind, "not_recorded");
}

TEST_F(MissingVolumeTest, AnAbsentHomeIsReported) {
  MoveToVolume(home_);
  Unmount();
  ExpectEachRefuses({
      {"List", [&](Client& c) { std::ignore = Snapshot::List(ctx_, c); }},
      {"ListDir", [&](Client& c) { std::ignore = Snapshot::ListDir(ctx_, "", c); }},
      {"Open", [&](Client& c) { std::ignore = Snapshot::Open(ctx_, "first", c); }},
      {"Remove", [&](Client& c) { Snapshot::Remove(ctx_, "second", false, c); }},
      {"ListSandboxes", [&](Client& c) { std::ignore = ListSandboxes(ctx_, c); }},
  });
  Mount();
  ExpectBothAreListed();
}

TEST_F(MissingVolumeTest, UsageLeavesOutWhatIsOnIt) {
  fs::create_directory(dir_ / "volume");
  fs::create_symlink(dir_ / "volume", dir_ / "link");
  Client client = NewClient();
  Snapshot::Create(ctx_, "b", {.path = dir_ / "link/outside"}, client);
  EXPECT_EQ(Snapshot::Usage(ctx_, client).size(), 3U);
  Unmount();
  EXPECT_EQ(Snapshot::Usage(ctx_, client).size(), 2U);
}

TEST_F(MissingVolumeTest, AFileInThePlaceOfADirectoryIsReported) {
  for (const char* name : {"sandboxes", "snapshots"}) {
    fs::rename(home_ / name, dir_ / "kept");
    WriteFile(home_ / name, "");
    Client client = NewClient();
    const bool force = name == std::string("snapshots");
    EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, "second", force, client), ErrorKind::kIO, name,
                     "is not a directory: correct the path, or move that file away");
    fs::remove(home_ / name);
    fs::rename(dir_ / "kept", home_ / name);
  }
  ExpectBothAreListed();
}

}  // namespace
}  // namespace msb::test
