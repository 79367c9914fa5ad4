// SPDX-License-Identifier: Apache-2.0
//
// Snapshots that are removed or replaced while they are used: every operation works on one of them
// or reports that there is none, and none reports damage.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "src/artifact/store.h"
#include "src/handle/catalog.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr std::uint64_t kReplacedDiskBytes = 4 << 20;

class ReplacedTest : public ::testing::Test {
 protected:
  ReplacedTest() {
    for (const char* name : {"one", "two"}) {
      MakeSparseFile(dir_ / (std::string(name) + ".img"), kReplacedDiskBytes,
                     {{0, Noise(70'000, name[0])}, {kReplacedDiskBytes / 2, name}});
      CreateSandbox(ctx_, name, {WithImage(dir_ / (std::string(name) + ".img"))}, client_).Close();
    }
  }

  SnapshotArtifact Create(const std::string& sandbox, const std::string& name) {
    return Snapshot::Create(
        ctx_, sandbox,
        {.name = name, .labels = {{"of", sandbox}}, .force = true, .record_integrity = true},
        client_);
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Client client_{{.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kRaw}};
};

TEST_F(ReplacedTest, ExportWritesManifestAndDiskOfOneArtifact) {
  Create("one", "a");
  CreateSandbox(ctx_, "w", {WithSnapshot("a")}, client_).Close();
  const auto old = Create("w", "b");
  bool replaced = false;
  const Context ctx = ctx_.WithProgress([&](const Progress&) {
    if (std::exchange(replaced, true)) return;
    Create("two", "a");
    Create("two", "b");
  });
  Snapshot::Export(ctx, "b", dir_ / "o.tar.zst", {.with_parents = true}, client_);
  ASSERT_TRUE(replaced);
  EXPECT_NE(Snapshot::Open(ctx_, "b", client_).Digest(), old.Digest());
  Client other = LocalClient(dir_ / "other");
  const auto imported = Snapshot::Import(ctx_, dir_ / "o.tar.zst", "", other).Open(ctx_);
  EXPECT_EQ(imported.Digest(), old.Digest());
  EXPECT_EQ(imported.Labels().at("of"), "w");
  EXPECT_EQ(imported.Verify(ctx_).upper.kind, "verified");
  EXPECT_TRUE(ReadFile(imported.Path() + "/upper.ext4") == ReadFile(dir_ / "one.img"));
}

TEST_F(ReplacedTest, VerifyAndFlattenUseTheFilesTheyOpened) {
  const auto old = Create("one", "a");
  const auto replace = [&](bool& done) {
    return ctx_.WithProgress([&](const Progress&) {
      if (!std::exchange(done, true)) Create("two", "a");
    });
  };
  bool replaced = false;
  EXPECT_EQ(old.Verify(replace(replaced)).upper.digest, old.Integrity()->digest);
  ASSERT_TRUE(replaced);
  Create("one", "a");
  replaced = false;
  Snapshot::Flatten(replace(replaced), "a", dir_ / "flat", {}, client_);
  ASSERT_TRUE(replaced);
  EXPECT_TRUE(ReadFile(dir_ / "flat") == ReadFile(dir_ / "one.img"));
}

TEST_F(ReplacedTest, VerifyReportsAReplacedSnapshot) {
  const auto old = Create("one", "a");
  const auto now = Create("two", "a");
  try {
    std::ignore = old.Verify(ctx_);
    ADD_FAILURE() << "verified";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kSnapshotNotFound) << e.what();
    EXPECT_THAT(e.what(), HasSubstr(old.Digest()));
    EXPECT_THAT(e.what(), HasSubstr("open it again"));
  }
  EXPECT_EQ(now.Verify(ctx_).upper.kind, "verified");
  std::string manifest = ReadFile(now.Path() + "/snapshot.json");
  manifest.replace(manifest.find("\"two\""), 5, "\"owt\"");
  WriteFile(now.Path() + "/snapshot.json", manifest);
  EXPECT_MSB_ERROR(now.Verify(ctx_), ErrorKind::kSnapshotIntegrity,
                   "/snapshots/a changed since it was opened", "expected " + now.Digest(),
                   "found sha256:");
}

TEST_F(ReplacedTest, ConcurrentReplacementIsNeverDamage) {
  Create("one", "a");
  std::atomic<bool> stop = false;
  // Replaces the snapshot, and now and then removes it, until the readers are done.
  std::thread writer([&] {
    for (int n = 0; !stop; ++n) {
      Create(n % 2 == 0 ? "one" : "two", "a");
      if (n % 5 == 0) Snapshot::Remove(ctx_, "a", /*force=*/true, client_);
    }
  });
  const auto expect_found_or_missing = [&](const char* what, const auto& use) {
    try {
      use();
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::kSnapshotNotFound) return;
      ADD_FAILURE() << what << ": " << ErrorKindName(e.kind()) << ": " << e.what();
    }
  };
  for (int n = 0; n < 40; ++n) {
    expect_found_or_missing("Open",
                            [&] { std::ignore = Snapshot::Open(ctx_, "a", client_).Verify(ctx_); });
    expect_found_or_missing("Get",
                            [&] { std::ignore = Snapshot::Get(ctx_, "a", client_).Open(ctx_); });
    expect_found_or_missing("Flatten", [&] {
      Snapshot::Flatten(ctx_, "a", dir_ / "flat", {}, client_);
      const std::string disk = ReadFile(dir_ / "flat");
      EXPECT_TRUE(disk == ReadFile(dir_ / "one.img") || disk == ReadFile(dir_ / "two.img"));
    });
    expect_found_or_missing("Export", [&] {
      Snapshot::Export(ctx_, "a", dir_ / "o.tar", {.plain_tar = true}, client_);
    });
    expect_found_or_missing("boot", [&] {
      CreateSandbox(ctx_, "w", {WithSnapshot("a"), WithReplace()}, client_).Close();
    });
    for (const auto& listed : Snapshot::ListDir(ctx_, "", client_)) {
      EXPECT_EQ(fs::path(listed.Path()).filename(), "a");
    }
  }
  stop = true;
  writer.join();
}

TEST_F(ReplacedTest, ListDirSkipsRemovedSnapshotsSilently) {
  std::vector<std::string> log;
  Client client = LocalClient(dir_ / "home", &log);
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    while (!stop) {
      Create("one", "a");
      Snapshot::Remove(ctx_, "a", /*force=*/true, client_);
    }
  });
  for (int n = 0; n < 300; ++n) std::ignore = Snapshot::ListDir(ctx_, "", client);
  stop = true;
  writer.join();
  EXPECT_THAT(log, testing::IsEmpty());
}

TEST_F(ReplacedTest, OpeningARemovedSnapshotDoesNotIndexIt) {
  const auto a = Create("one", "a");
  const artifact::Artifact opened = artifact::OpenArtifactAt(a.Path());
  handle::Catalog catalog(base::Home({.home = dir_ / "home"}), [](std::string_view) {});
  Snapshot::Remove(ctx_, "a", false, client_);
  catalog.Record(ctx_, opened);
  EXPECT_TRUE(Snapshot::List(ctx_, client_).empty());
}

}  // namespace
}  // namespace msb::test
