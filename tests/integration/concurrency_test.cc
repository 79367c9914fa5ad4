// SPDX-License-Identifier: Apache-2.0
//
// The table of concurrent operations in msb/snapshot.h, row by row. The progress function of one
// operation runs another in the middle of it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kRacedDiskBytes = 4 << 20;

class ConcurrencyTest : public ::testing::Test {
 protected:
  ConcurrencyTest() {
    for (const char* name : {"one", "two"}) {
      MakeSparseFile(Image(name), kRacedDiskBytes,
                     {{0, Noise(70'000, name[0])}, {kRacedDiskBytes / 2, name}});
      CreateSandbox(ctx_, name, {WithImage(Image(name))}, client_).Close();
    }
  }

  fs::path Image(const std::string& name) const { return dir_ / (name + ".img"); }

  Client Overlays() const {
    return Client(
        {.home = dir_ / "overlays", .backend = "local", .upper_format = DiskFormat::kQcow2});
  }

  SnapshotArtifact Create(const std::string& sandbox, const std::string& name, bool force = false) {
    return Snapshot::Create(ctx_, sandbox, {.name = name, .force = force, .record_integrity = true},
                            client_);
  }

  // Runs operation, and calls meanwhile once, when operation first reports progress.
  void Run(const std::function<void(const Context&)>& operation,
           const std::function<void()>& meanwhile) {
    bool ran = false;
    operation(ctx_.WithProgress([&](const Progress&) {
      if (!std::exchange(ran, true)) meanwhile();
    }));
    EXPECT_TRUE(ran) << "the operation reported no progress";
  }

  // Makes the calls concurrently. Returns how many succeeded ("done") and how many threw each kind.
  static std::map<std::string, int> Outcomes(const std::vector<std::function<void()>>& calls) {
    std::vector<std::string> outcomes(calls.size(), "done");
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < calls.size(); ++i) {
        threads.emplace_back([&, i] {
          try {
            calls[i]();
          } catch (const Error& e) {
            outcomes[i] = ErrorKindName(e.kind());
          }
        });
      }
    }
    std::map<std::string, int> counts;
    for (const std::string& outcome : outcomes) ++counts[outcome];
    return counts;
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Client client_{{.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kRaw}};
};

struct Reader {
  const char* name;
  // Reads the snapshot "a", and returns the content that it found.
  std::function<std::string(const Context&, Client&, const fs::path& dir)> read;
};

const std::vector<Reader>& Readers() {
  static const Context kCtx = Context::Background();
  static const std::vector<Reader> kReaders = {
      {"Verify",
       [](const Context& ctx, Client& client, const fs::path& dir) {
         const auto opened = Snapshot::Open(kCtx, "a", client);
         EXPECT_EQ(opened.Verify(ctx).upper.kind, "verified");
         return ReadFile(dir / "one.img");
       }},
      {"Export",
       [](const Context& ctx, Client& client, const fs::path& dir) {
         Snapshot::Export(ctx, "a", dir / "a.tar.zst", {}, client);
         Client other = LocalClient(dir / "other");
         const auto imported = Snapshot::Import(kCtx, dir / "a.tar.zst", "", other).Open(kCtx);
         EXPECT_EQ(imported.Verify(kCtx).upper.kind, "verified");
         return ReadFile(imported.Path() + "/upper.ext4");
       }},
      {"Flatten",
       [](const Context& ctx, Client& client, const fs::path& dir) {
         Snapshot::Flatten(ctx, "a", dir / "flat", {}, client);
         return ReadFile(dir / "flat");
       }},
      {"Squash",
       [](const Context& ctx, Client& client, const fs::path&) {
         const auto squashed = Snapshot::Squash(ctx, "a", {.name = "squashed"}, client);
         return ReadFile(squashed.Path() + "/upper.ext4");
       }},
  };
  return kReaders;
}

class ConcurrentReaderTest : public ConcurrencyTest, public ::testing::WithParamInterface<Reader> {
 protected:
  void ExpectOldContent(const std::function<void()>& meanwhile) {
    Create("one", "a");
    Run(
        [&](const Context& ctx) {
          EXPECT_TRUE(GetParam().read(ctx, client_, dir_.path()) == ReadFile(Image("one")));
        },
        meanwhile);
  }
};

TEST_P(ConcurrentReaderTest, CompletesAlthoughTheSnapshotIsReplaced) {
  ExpectOldContent([&] { Create("two", "a", /*force=*/true); });
  EXPECT_TRUE(ReadFile(Snapshot::Open(ctx_, "a", client_).Path() + "/upper.ext4") ==
              ReadFile(Image("two")));
}

TEST_P(ConcurrentReaderTest, CompletesAlthoughTheSnapshotIsRemoved) {
  ExpectOldContent([&] { Snapshot::Remove(ctx_, "a", /*force=*/false, client_); });
  EXPECT_MSB_ERROR(Snapshot::Open(ctx_, "a", client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot at ", "/snapshots/a");
}

INSTANTIATE_TEST_SUITE_P(Readers, ConcurrentReaderTest, ::testing::ValuesIn(Readers()),
                         [](const auto& reader) { return std::string(reader.param.name); });

TEST_F(ConcurrencyTest, ASandboxBootsFromTheSnapshotThatReplacesItsOwn) {
  Create("one", "a");
  Run([&](const Context& ctx) { CreateSandbox(ctx, "w", {WithSnapshot("a")}, client_).Close(); },
      [&] { Create("two", "a", /*force=*/true); });
  EXPECT_TRUE(ReadFile(GetSandbox(ctx_, "w", client_).Upper().path) == ReadFile(Image("two")));
}

TEST_F(ConcurrencyTest, ASandboxOfASnapshotThatIsRemovedMeanwhileIsNotCreated) {
  Create("one", "a");
  Run(
      [&](const Context& ctx) {
        EXPECT_MSB_ERROR(CreateSandbox(ctx, "w", {WithSnapshot("a")}, client_),
                         ErrorKind::kSnapshotNotFound, "no snapshot at ", "/snapshots/a");
      },
      [&] { Snapshot::Remove(ctx_, "a", /*force=*/false, client_); });
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "w", client_), ErrorKind::kSandboxNotFound, "no sandbox 'w'");
}

TEST_F(ConcurrencyTest, OneOfTwoCreatesMakesTheSnapshot) {
  Run(
      [&](const Context& ctx) {
        EXPECT_MSB_ERROR(Snapshot::Create(ctx, "one", {.name = "a"}, client_),
                         ErrorKind::kSnapshotAlreadyExists, "/snapshots/a exists",
                         "remove it, or set force to replace it");
      },
      [&] { Create("two", "a"); });
  EXPECT_TRUE(ReadFile(Snapshot::Open(ctx_, "a", client_).Path() + "/upper.ext4") ==
              ReadFile(Image("two")));
}

TEST_F(ConcurrencyTest, AForcedCreateReplacesASnapshotCreatedMeanwhile) {
  Run(
      [&](const Context& ctx) {
        Snapshot::Create(ctx, "one", {.name = "a", .force = true}, client_);
      },
      [&] { Create("two", "a", /*force=*/true); });
  EXPECT_TRUE(ReadFile(Snapshot::Open(ctx_, "a", client_).Path() + "/upper.ext4") ==
              ReadFile(Image("one")));
  EXPECT_EQ(Snapshot::List(ctx_, client_).size(), 1U);
}

TEST_F(ConcurrencyTest, OneOfSeveralImportsAddsTheSnapshot) {
  Create("one", "a");
  Snapshot::Export(ctx_, "a", dir_ / "a.tar", {.plain_tar = true}, client_);
  Client other = LocalClient(dir_ / "other");
  const auto import = [&] { Snapshot::Import(ctx_, dir_ / "a.tar", "", other); };
  const std::map<std::string, int> expected = {{"done", 1}, {"SnapshotAlreadyExists", 3}};
  EXPECT_EQ(Outcomes({import, import, import, import}), expected);
  EXPECT_EQ(Snapshot::ListDir(ctx_, "", other).size(), 1U);
  EXPECT_EQ(Snapshot::List(ctx_, other).size(), 1U);
}

TEST_F(ConcurrencyTest, SeveralSnapshotsOfOneSandboxAreMadeOneAfterTheOther) {
  Client overlays(
      {.home = dir_ / "overlays", .backend = "local", .upper_format = DiskFormat::kQcow2});
  CreateSandbox(ctx_, "b", {WithImage(Image("one"))}, overlays).Close();
  std::vector<std::function<void()>> calls;
  for (const char* name : {"a", "b", "c", "d"}) {
    calls.emplace_back([&, name] { Snapshot::Create(ctx_, "b", {.name = name}, overlays); });
  }
  const std::map<std::string, int> expected = {{"done", 4}};
  EXPECT_EQ(Outcomes(calls), expected);
  // Each is backed by the one before.
  int without_parent = 0;
  for (const auto& artifact : Snapshot::ListDir(ctx_, "", overlays)) {
    if (!artifact.Parent()) ++without_parent;
    Snapshot::Flatten(ctx_, artifact.Path(), dir_ / "flat", {}, overlays);
    EXPECT_TRUE(ReadFile(dir_ / "flat") == ReadFile(Image("one")));
  }
  EXPECT_EQ(without_parent, 1);
}

TEST_F(ConcurrencyTest, ASandboxThatIsRemovedWhileItIsCopiedIsReportedAsSuch) {
  Run(
      [&](const Context& ctx) {
        EXPECT_MSB_ERROR(Snapshot::Create(ctx, "one", {.name = "a"}, client_),
                         ErrorKind::kSandboxNotFound, "no sandbox 'one'");
      },
      [&] { RemoveSandbox(ctx_, "one", client_); });
  EXPECT_TRUE(Snapshot::ListDir(ctx_, "", client_).empty());
}

TEST_F(ConcurrencyTest, ASandboxThatIsReplacedWhileItIsCopiedIsCopiedAgain) {
  Run([&](const Context& ctx) { Snapshot::Create(ctx, "one", {.name = "a"}, client_); },
      [&] {
        CreateSandbox(ctx_, "one", {WithImage(Image("two")), WithReplace()}, client_).Close();
      });
  EXPECT_TRUE(ReadFile(Snapshot::Open(ctx_, "a", client_).Path() + "/upper.ext4") ==
              ReadFile(Image("two")));
}

TEST_F(ConcurrencyTest, CallsForASandboxWaitUntilItsDiskIsTakenOver) {
  Client overlays = Overlays();
  const auto replace = [&] {
    CreateSandbox(ctx_, "b", {WithImage(Image("two")), WithReplace()}, overlays).Close();
  };
  for (const std::function<void()>& use :
       std::vector<std::function<void()>>{[&] { StartSandbox(ctx_, "b", overlays).Close(); },
                                          [&] { RemoveSandbox(ctx_, "b", overlays); }, replace}) {
    CreateSandbox(ctx_, "b", {WithImage(Image("one")), WithReplace()}, overlays).Close();
    std::jthread thread;
    Run(
        [&](const Context& ctx) {
          Snapshot::Create(ctx, "b", {.name = "a", .force = true, .record_integrity = true},
                           overlays);
        },
        [&] { thread = std::jthread([&] { EXPECT_NO_THROW(use()); }); });
    thread.join();
    Snapshot::Flatten(ctx_, "a", dir_ / "flat", {}, overlays);
    EXPECT_TRUE(ReadFile(dir_ / "flat") == ReadFile(Image("one")));
  }
}

TEST_F(ConcurrencyTest, OneOfSeveralStartsBootsTheSandbox) {
  std::vector<std::optional<Sandbox>> running(4);
  std::vector<std::function<void()>> calls;
  for (auto& sandbox : running) {
    calls.emplace_back([&] { sandbox = StartSandbox(ctx_, "one", client_); });
  }
  const std::map<std::string, int> expected = {{"done", 1}, {"SandboxStillRunning", 3}};
  EXPECT_EQ(Outcomes(calls), expected);
}

TEST_F(ConcurrencyTest, ListsShowTheStateBeforeOrAfterAChange) {
  Create("one", "a");
  std::optional<std::vector<SnapshotHandle>> listed;
  Run([&](const Context& ctx) { Snapshot::Create(ctx, "two", {.name = "b"}, client_); },
      [&] { listed = Snapshot::List(ctx_, client_); });
  ASSERT_EQ(listed->size(), 1U);
  EXPECT_EQ(listed->front().Name(), "a");
  EXPECT_EQ(Snapshot::List(ctx_, client_).size(), 2U);
}

}  // namespace
}  // namespace msb::test
