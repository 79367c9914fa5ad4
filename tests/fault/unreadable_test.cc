// SPDX-License-Identifier: Apache-2.0
//
// Calls that may need a snapshot that cannot be read.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/call_interceptor.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// A home with the snapshots "base" <- "overlay" of one qcow2 sandbox.
class UnreadableTest : public ::testing::Test {
 protected:
  UnreadableTest() {
    MakeSparseFile(dir_ / "base.img", 100'352, {{0, Noise(20'000, 1)}});
    Client client = NewClient();
    CreateSandbox(ctx_, "cow", {WithImage(dir_ / "base.img")}, client).Close();
    Snapshot::Create(ctx_, "cow", {.name = "base"}, client);
    Snapshot::Create(ctx_, "cow", {.name = "overlay"}, client);
    RemoveSandbox(ctx_, "cow", client);
    CreateSandbox(ctx_, "other", {WithImage(dir_ / "base.img")}, client).Close();
  }

  Client NewClient() {
    return Client({.home = dir_ / "home",
                   .backend = "local",
                   .upper_format = DiskFormat::kQcow2,
                   .log = [this](std::string_view message) { log_.append(message) += '\n'; }});
  }

  // Exports "overlay" and then removes it. Returns the archive's path.
  std::string MoveToArchive(const SnapshotExportOptions& options) {
    Client client = NewClient();
    Snapshot::Export(ctx_, "overlay", dir_ / "archive", options, client);
    Snapshot::Remove(ctx_, "overlay", false, client);
    return dir_ / "archive";
  }

  void RemoveIndex() { fs::remove_all(dir_ / "home/db"); }

  // Calls code while opening any path with one of these endings fails (EACCES). Returns the error
  // that code threw, or else what it logged.
  std::string WhileUnreadable(const std::vector<std::string>& endings,
                              const std::function<void(Client& client)>& code) {
    const auto decide = [&](const InterceptedCall& call) {
      if (!CanFailWith(call, EACCES) || !call.Describe().starts_with("open")) return 0;
      const std::string text = call.Describe();
      for (const std::string& ending : endings) {
        if (text.find(ending + ")") != std::string::npos ||
            text.find(ending + ",") != std::string::npos) {
          return EACCES;
        }
      }
      return 0;
    };
    return RunIntercepted(FileCalls(), decide,
                          [&](const auto& begin) {
                            Client client = NewClient();
                            begin();
                            try {
                              code(client);
                            } catch (const Error& e) {
                              return std::string(ErrorKindName(e.kind())) + ": " + e.what();
                            }
                            return log_;
                          })
        .report;
  }

  std::string PathOf(const std::string& snapshot) { return dir_ / "home/snapshots" / snapshot; }

  const Context ctx_ = Context::Background();
  const TempDir dir_;
  std::string log_;
};

TEST_F(UnreadableTest, ImportReportsTheBackingSnapshotThatItCannotRead) {
  const std::string archive = MoveToArchive({.since = "base"});
  for (const bool indexed : {true, false}) {
    if (!indexed) RemoveIndex();
    const std::string thrown = WhileUnreadable(
        {"/snapshots/base"}, [&](Client& client) { Snapshot::Import(ctx_, archive, "", client); });
    EXPECT_THAT(thrown, AllOf(HasSubstr("IO: cannot "), HasSubstr(PathOf("base")),
                              HasSubstr("Permission denied")));
  }
}

TEST_F(UnreadableTest, ImportReportsTheSnapshotThatIsHereButCannotBeRead) {
  Client client = NewClient();
  Snapshot::Export(ctx_, "overlay", dir_ / "archive", {}, client);
  const std::string thrown = WhileUnreadable({"/snapshots/overlay"}, [&](Client& other) {
    Snapshot::Import(ctx_, dir_ / "archive", "", other);
  });
  EXPECT_THAT(thrown, AllOf(HasSubstr("IO: cannot "), HasSubstr(PathOf("overlay"))));
}

TEST_F(UnreadableTest, ImportWarnsOfAnUnrelatedSnapshotThatItCannotRead) {
  const std::string archive = MoveToArchive({});
  {
    Client client = NewClient();
    Snapshot::Create(ctx_, "other", {.name = "unrelated"}, client);
  }
  const std::string logged = WhileUnreadable({"/snapshots/unrelated"}, [&](Client& client) {
    Snapshot::Import(ctx_, archive, "", client);
  });
  EXPECT_THAT(logged, AllOf(HasSubstr("may already exist"), HasSubstr(PathOf("unrelated"))));
  Client client = NewClient();
  EXPECT_EQ(Snapshot::ListDir(ctx_, "", client).size(), 3U);
}

TEST_F(UnreadableTest, UsageLeavesOutTheSnapshotThatItCannotRead) {
  const std::string logged = WhileUnreadable({"/snapshots/overlay"}, [&](Client& client) {
    for (const SnapshotUsage& usage : Snapshot::Usage(ctx_, client)) {
      log_ += "counted: " + usage.name.value_or("") + "\n";
    }
  });
  EXPECT_THAT(logged, AllOf(HasSubstr("counted: base\n"),
                            HasSubstr("the space of " + PathOf("overlay") + " is not counted"),
                            HasSubstr("Permission denied")));
}

TEST_F(UnreadableTest, FlattenReportsTheParentThatItCannotRead) {
  Client client = NewClient();
  for (const char* name : {"first", "second", "third"}) {
    Snapshot::Create(ctx_, "other", {.path = dir_ / "out" / name}, client);
  }
  RemoveIndex();
  // Finding "second" has read the directory already, so it is not read again for the parent of
  // "second".
  const std::string thrown = WhileUnreadable({"/out/first"}, [&](Client& other) {
    Snapshot::Flatten(ctx_, dir_ / "out/third", dir_ / "flat", {}, other);
  });
  EXPECT_THAT(thrown, AllOf(HasSubstr("IO: cannot "), HasSubstr((dir_ / "out/first").native())));
}

TEST_F(UnreadableTest, CreateByForceKeepsASnapshotThatAnUnreadableOneMayNeed) {
  const auto create = [&](Client& client) {
    Snapshot::Create(ctx_, "other", {.name = "base", .force = true}, client);
  };
  const std::string children = WhileUnreadable({".db"}, create);
  EXPECT_THAT(children, AllOf(HasSubstr("SnapshotHasChildren: "), HasSubstr(PathOf("overlay"))));
  const std::string unread = WhileUnreadable({".db", "/snapshots/overlay"}, create);
  EXPECT_THAT(unread, AllOf(HasSubstr("IO: " + PathOf("base") + " cannot be replaced"),
                            HasSubstr(PathOf("overlay")), HasSubstr("choose another name")));
}

TEST_F(UnreadableTest, RemoveAndPruneKeepASnapshotThatAnUnreadableOneMayNeed) {
  RemoveIndex();
  const std::string removed = WhileUnreadable({"/snapshots/overlay"}, [&](Client& client) {
    Snapshot::Remove(ctx_, "base", false, client);
  });
  EXPECT_THAT(removed, AllOf(HasSubstr("IO: base ("), HasSubstr("is not removed"),
                             HasSubstr(PathOf("overlay")), HasSubstr("or use force")));
  const std::string pruned = WhileUnreadable({"/snapshots/overlay"}, [&](Client& client) {
    Snapshot::Prune(ctx_, {.keep_last = 0}, client);
  });
  EXPECT_THAT(pruned, AllOf(HasSubstr("IO: " + PathOf("base") + " is not removed"),
                            HasSubstr(PathOf("overlay")), HasSubstr("readable")));
  EXPECT_TRUE(fs::exists(PathOf("base")));
}

TEST_F(UnreadableTest, NoSnapshotGoesThatAnUnreadableSandboxMayUse) {
  const std::string sandbox = dir_ / "home/sandboxes/other";
  const std::vector<std::string> endings = {"/sandboxes/other", "/sandboxes/other/sandbox.json"};
  const auto refuses = [&](const std::string& next_step, const auto& call) {
    EXPECT_THAT(WhileUnreadable(endings, call),
                AllOf(testing::StartsWith("IO: "), HasSubstr("a sandbox that may need it"),
                      HasSubstr(sandbox), HasSubstr(next_step)));
  };
  refuses("or use force",
          [&](Client& client) { Snapshot::Remove(ctx_, "overlay", false, client); });
  refuses("make that sandbox readable",
          [&](Client& client) { Snapshot::Prune(ctx_, {.keep_last = 0}, client); });
  refuses("choose another name", [&](Client& client) {
    Snapshot::Squash(ctx_, "base", {.name = "overlay", .force = true}, client);
  });
  EXPECT_TRUE(fs::exists(PathOf("overlay")));
  // A known dependent is reported before an unreadable one, and a list still shows the readable
  // sandboxes.
  EXPECT_THAT(WhileUnreadable(
                  endings, [&](Client& client) { Snapshot::Remove(ctx_, "base", false, client); }),
              HasSubstr("SnapshotHasChildren: base ("));
  EXPECT_THAT(
      WhileUnreadable(endings,
                      [&](Client& client) { EXPECT_TRUE(ListSandboxes(ctx_, client).empty()); }),
      AllOf(testing::StartsWith("cannot "), HasSubstr(sandbox)));
}

}  // namespace
}  // namespace msb::test
