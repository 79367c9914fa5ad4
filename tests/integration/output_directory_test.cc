// SPDX-License-Identifier: Apache-2.0
//
// Every operation that writes to a path creates the missing directories, and removes them again if
// it fails.

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

class OutputDirectoryTest : public ::testing::Test {
 protected:
  using Write = std::function<void(const Context& ctx, const std::string& path)>;

  OutputDirectoryTest() {
    MakeSparseFile(dir_ / "base.img", 8 << 20, {{0, Noise(1 << 20, 1)}});
    MakeStoppedSandbox(client_, "baseline", dir_ / "base.img");
    Snapshot::Create(ctx_, "baseline", {.name = "s"}, client_);
  }

  std::vector<std::pair<std::string, Write>> Operations() {
    return {
        {"Create",
         [this](const Context& ctx, const std::string& path) {
           Snapshot::Create(ctx, "baseline", {.path = path}, client_);
         }},
        {"SnapshotTo",
         [this](const Context& ctx, const std::string& path) {
           GetSandbox(ctx_, "baseline", client_).SnapshotTo(ctx, path);
         }},
        {"Export",
         [this](const Context& ctx, const std::string& path) {
           Snapshot::Export(ctx, "s", path, {}, client_);
         }},
        {"Flatten",
         [this](const Context& ctx, const std::string& path) {
           Snapshot::Flatten(ctx, "s", path, {}, client_);
         }},
        {"Squash",
         [this](const Context& ctx, const std::string& path) {
           Snapshot::Squash(ctx, "s", {.path = path}, client_);
         }},
    };
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Client client_ = LocalClient(dir_ / "home");
};

TEST_F(OutputDirectoryTest, MissingParentDirectoriesAreCreated) {
  for (const auto& [name, write] : Operations()) {
    SCOPED_TRACE(name);
    const fs::path out = dir_ / name / "srv/snapshots/baseline";
    EXPECT_NO_THROW(write(ctx_, out));
    EXPECT_TRUE(fs::exists(out));
  }
}

TEST_F(OutputDirectoryTest, TheyAreRemovedAgainOnFailureAndCancellation) {
  for (const auto& [name, write] : Operations()) {
    SCOPED_TRACE(name);
    const auto [ctx, cancel] = ctx_.WithCancel();
    const Context stopping = ctx.WithProgress([cancel = cancel](const Progress&) { cancel(); });
    const auto before = ListTree(dir_.path());
    EXPECT_MSB_ERROR(write(stopping, dir_ / "new/deep/out"), ErrorKind::kCancelled, "cancelled");
    EXPECT_EQ(ListTree(dir_.path()), before);
    // A directory that was there before stays, even if it is empty.
    fs::create_directory(dir_ / "mine");
    const auto [again, cancel_again] = ctx_.WithCancel();
    EXPECT_MSB_ERROR(write(again.WithProgress([c = cancel_again](const Progress&) { c(); }),
                           dir_ / "mine/deep/out"),
                     ErrorKind::kCancelled, "cancelled");
    EXPECT_TRUE(fs::is_empty(dir_ / "mine"));
    fs::remove(dir_ / "mine");
  }
}

TEST_F(OutputDirectoryTest, NothingIsCreatedInsideASnapshot) {
  const auto before = ListTree(dir_.path());
  for (const auto& [name, write] : Operations()) {
    SCOPED_TRACE(name);
    for (const char* out : {"out", "new/out", "deep/er/out"}) {
      EXPECT_MSB_ERROR(write(ctx_, dir_ / "home/snapshots/s" / out), ErrorKind::kInvalidArgument,
                       "cannot write ", "/snapshots/s is a snapshot", "write it elsewhere");
      EXPECT_EQ(ListTree(dir_.path()), before);
    }
  }
}

// An archive over an image in the cache would be the disk of later sandboxes.
TEST_F(OutputDirectoryTest, NothingIsWrittenOverTheFilesOfTheHome) {
  Snapshot::Export(ctx_, "s", dir_ / "s.tar.zst", {}, client_);
  fs::create_directory_symlink("home/cache/disks", dir_ / "link");
  auto operations = Operations();
  operations.emplace_back("Import", [this](const Context& ctx, const std::string& path) {
    Snapshot::Import(ctx, dir_ / "s.tar.zst", path, client_);
  });
  const fs::path image = fs::directory_iterator(dir_ / "home/cache/disks")->path();
  const auto before = ListTree(dir_.path());
  for (const auto& [name, write] : operations) {
    SCOPED_TRACE(name);
    for (const auto& [out, content] : std::vector<std::pair<fs::path, std::string>>{
             {"home/sandboxes/baseline/upper.ext4", "sandboxes"},
             {"home/sandboxes/baseline/new/out", "sandboxes"},
             {fs::path("home/cache/disks") / image.filename(), "cache"},
             {fs::path("link") / image.filename(), "cache"},
             {"link/new/out", "cache"},
             {"home/snapshots/../cache/out", "cache"},
             {"home/cache", "cache"},
             {"home/db/snapshots.db", "databases"}}) {
      EXPECT_MSB_ERROR(write(ctx_, dir_ / out.native()), ErrorKind::kInvalidArgument,
                       "cannot write ", "/home keeps its " + content, "write it elsewhere");
      EXPECT_EQ(ListTree(dir_.path()), before);
    }
  }
}

TEST_F(OutputDirectoryTest, AnArchiveOrDiskMustHaveAName) {
  const auto before = ListTree(dir_.path());
  for (const auto& [name, write] : Operations()) {
    if (name != "Export" && name != "Flatten") continue;
    SCOPED_TRACE(name);
    for (const char* out : {"base.img/", "new/", "new/.", "new/.."}) {
      EXPECT_MSB_ERROR(write(ctx_, dir_.path() / out), ErrorKind::kInvalidArgument, out,
                       "it must end in the name of a file");
    }
    EXPECT_MSB_ERROR(write(ctx_, ""), ErrorKind::kInvalidArgument, "an empty path",
                     "give the path of a file");
    EXPECT_EQ(ListTree(dir_.path()), before);
  }
  EXPECT_MSB_ERROR(Snapshot::Import(ctx_, "", "", client_), ErrorKind::kInvalidArgument,
                   "an empty path", "give the path of a file");
}

TEST_F(OutputDirectoryTest, NothingIsImportedIntoASnapshot) {
  Snapshot::Export(ctx_, "s", dir_ / "s.tar.zst", {}, client_);
  const auto before = ListTree(dir_.path());
  for (const char* destination : {"home/snapshots/s", "home/snapshots/s/new"}) {
    EXPECT_MSB_ERROR(Snapshot::Import(ctx_, dir_ / "s.tar.zst", dir_ / destination, client_),
                     ErrorKind::kInvalidArgument, "cannot write ", "/snapshots/s is a snapshot",
                     "write it elsewhere");
    EXPECT_EQ(ListTree(dir_.path()), before);
  }
}

TEST_F(OutputDirectoryTest, AFileInTheWayIsNamed) {
  for (const auto& [name, write] : Operations()) {
    SCOPED_TRACE(name);
    EXPECT_MSB_ERROR(write(ctx_, dir_ / "base.img/deep/out"), ErrorKind::kIO,
                     "/base.img: ", "correct the path");
  }
}

}  // namespace
}  // namespace msb::test
