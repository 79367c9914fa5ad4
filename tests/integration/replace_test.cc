// SPDX-License-Identifier: Apache-2.0
//
// Replacing and removing while others do the same: nothing is lost, no call fails without a reason,
// and the index matches the artifacts.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <set>
#include <thread>
#include <tuple>

#include "src/base/sqlite.h"
#include "tests/support/limits.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ReplaceTest : public ::testing::Test {
 protected:
  ReplaceTest() { MakeStoppedSandbox(client_, "b", dir_ / "base.img"); }

  SnapshotArtifact Create(const std::string& name, bool force = false) {
    return Snapshot::Create(ctx_, "b", {.name = name, .force = force}, client_);
  }

  // Expects each row to lead to an artifact with its digest, each artifact to have a row, and
  // nothing else to be left.
  void ExpectConsistent(std::size_t snapshots) {
    std::set<std::string> listed;
    for (const SnapshotHandle& handle : Snapshot::List(ctx_, client_)) {
      listed.insert(fs::path(handle.Path()).filename());
      EXPECT_EQ(Snapshot::Open(ctx_, handle.Path(), client_).Digest(), handle.Digest());
    }
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(home_ / "snapshots")) {
      found.insert(entry.path().filename());
    }
    EXPECT_EQ(listed, found);
    EXPECT_EQ(found.size(), snapshots);
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path home_ = dir_ / "home";
  std::vector<std::string> log_;
  Client client_ = LocalClient(home_, &log_);
};

TEST_F(ReplaceTest, ForcedCreatesOfManyThreadsAllSucceed) {
  const auto loop = [&](int thread) {
    for (int i = 0; i < 8; ++i) {
      EXPECT_NO_THROW(Create("own" + std::to_string(thread), true));
      EXPECT_NO_THROW(Create("shared", true));
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 8; ++thread) threads.emplace_back(loop, thread);
  }
  ExpectConsistent(9);
  EXPECT_TRUE(log_.empty()) << log_[0];
}

TEST_F(ReplaceTest, ForcedCreatesOfManyProcessesAllSucceed) {
  std::vector<pid_t> children;
  for (int process = 0; process < 9; ++process) {
    const pid_t child = fork();
    if (child == 0) {
      try {
        Client own = LocalClient(home_);
        for (int i = 0; i < 12; ++i) {
          const std::string name = i % 3 != 0 ? "shared" : "own" + std::to_string(process);
          Snapshot::Create(ctx_, "b", {.name = name, .force = true}, own);
        }
        _exit(0);
      } catch (const std::exception& e) {
        fprintf(stderr, "%s\n", e.what());
        _exit(1);
      }
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  ExpectConsistent(10);
}

TEST_F(ReplaceTest, CreateAndRemoveOfOneNameLeaveNoRowBehind) {
  const auto create = [&] {
    for (int i = 0; i < 10; ++i) EXPECT_NO_THROW(Create("s", true));
  };
  const auto remove = [&] {
    for (int i = 0; i < 10; ++i) {
      try {
        Snapshot::Remove(ctx_, "s", false, client_);
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::kSnapshotNotFound) << e.what();
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back(create);
      threads.emplace_back(remove);
    }
  }
  Create("s", true);
  ExpectConsistent(1);
}

TEST_F(ReplaceTest, SandboxesReplaceNothingButSandboxesOfTheirBackend) {
  const fs::path victim = home_ / "sandboxes/victim";
  WriteFile(victim / "upper.ext4", "of a microsandbox runtime");
  const auto before = ListTree(home_ / "sandboxes");
  for (const char* image : {"base.img", "missing.img"}) {
    EXPECT_MSB_ERROR(
        CreateSandbox(ctx_, "victim", {WithImage(dir_ / image), WithReplace()}, client_),
        ErrorKind::kSandboxAlreadyExists, "/sandboxes/victim exists and is not a sandbox",
        "choose another name");
  }
  EXPECT_MSB_ERROR(RemoveSandbox(ctx_, "victim", client_), ErrorKind::kSandboxNotFound,
                   "no sandbox 'victim'");
  EXPECT_EQ(ListTree(home_ / "sandboxes"), before);
}

TEST_F(ReplaceTest, ConcurrentReplacementsOfASandboxAllSucceed) {
  CreateSandbox(ctx_, "w", {WithImage(dir_ / "base.img")}, client_).Close();
  const auto loop = [&] {
    for (int i = 0; i < 4; ++i) {
      EXPECT_NO_THROW(GetSandbox(ctx_, "w", client_));
      EXPECT_EQ(ListSandboxes(ctx_, client_).size(), 2U);
      try {
        CreateSandbox(ctx_, "w", {WithImage(dir_ / "base.img"), WithReplace()}, client_).Close();
      } catch (const Error& e) {
        // Another thread has replaced it before it was closed.
        EXPECT_EQ(e.kind(), ErrorKind::kSandboxNotFound) << e.what();
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread) threads.emplace_back(loop);
  }
  EXPECT_NO_THROW(GetSandbox(ctx_, "w", client_));
  EXPECT_EQ(std::distance(fs::directory_iterator(home_ / "sandboxes"), {}), 2);
}

TEST_F(ReplaceTest, RemoveChangesNothingWhileTheIndexIsLocked) {
  Create("s");
  base::Database db(home_ / "db/snapshots.db", base::Database::Mode::kReadWrite);
  db.Execute("BEGIN IMMEDIATE");
  const auto before = ListTree(home_ / "snapshots");
  const Context soon = ctx_.WithTimeout(std::chrono::milliseconds(100));
  EXPECT_MSB_ERROR(Snapshot::Remove(soon, "s", false, client_), ErrorKind::kCancelled,
                   "deadline exceeded");
  EXPECT_EQ(ListTree(home_ / "snapshots"), before);
  EXPECT_EQ(Snapshot::Get(ctx_, "s", client_).Path(), home_ / "snapshots/s");
  db.Execute("ROLLBACK");
  Snapshot::Remove(ctx_, "s", false, client_);
  ExpectConsistent(0);
}

TEST_F(ReplaceTest, RemoveNamesTheFilesThatItCannotDeleteAndALaterCallDeletesThem) {
  Create("s");
  {
    const ImmutableFile file(home_ / "snapshots/s/upper.ext4", home_);
    if (!file.is_set()) GTEST_SKIP() << "chattr +i is not possible here";
    try {
      Snapshot::Remove(ctx_, "s", false, client_);
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kIO);
      EXPECT_THAT(e.what(), HasSubstr((home_ / "snapshots/.msb-stage-").native()));
    }
    EXPECT_MSB_ERROR(Snapshot::Get(ctx_, "s", client_), ErrorKind::kSnapshotNotFound,
                     "no snapshot 's' in the index", "call Reindex");
    Create("s");
    ASSERT_FALSE(log_.empty());
    EXPECT_THAT(log_[0], HasSubstr("the next call tries again"));
  }
  Create("t");
  ExpectConsistent(2);
}

TEST_F(ReplaceTest, RemoveSandboxNamesTheFilesThatItCannotDelete) {
  {
    const ImmutableFile file(home_ / "sandboxes/b/upper.ext4", home_);
    if (!file.is_set()) GTEST_SKIP() << "chattr +i is not possible here";
    try {
      RemoveSandbox(ctx_, "b", client_);
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kIO);
      EXPECT_THAT(e.what(), HasSubstr((home_ / "sandboxes/.msb-stage-").native()));
    }
    EXPECT_MSB_ERROR(GetSandbox(ctx_, "b", client_), ErrorKind::kSandboxNotFound, "no sandbox 'b'");
  }
  MakeStoppedSandbox(client_, "c", dir_ / "base.img");
  EXPECT_EQ(std::distance(fs::directory_iterator(home_ / "sandboxes"), {}), 1);
}

TEST_F(ReplaceTest, RemoveInACopyOfAHomeKeepsTheOriginal) {
  for (const bool by_digest : {false, true}) {
    const std::string name = by_digest ? "by-digest" : "by-name";
    const std::string digest = Create(name).Digest();
    const fs::path copy = dir_ / ("copy-" + name);
    fs::copy(home_, copy, fs::copy_options::recursive);
    Client other = LocalClient(copy);
    Snapshot::Remove(ctx_, by_digest ? digest : name, false, other);
    EXPECT_FALSE(fs::exists(copy / "snapshots" / name));
    EXPECT_MSB_ERROR(Snapshot::Get(ctx_, digest, other), ErrorKind::kSnapshotNotFound,
                     "no snapshot '" + digest + "' in the index", "call Reindex");
    EXPECT_EQ(Snapshot::Open(ctx_, name, client_).Digest(), digest);
  }
}

TEST_F(ReplaceTest, RemoveOfAPathKeepsAnotherCopyOfTheSnapshot) {
  Create("s");
  const fs::path elsewhere = dir_ / "elsewhere/s";
  fs::create_directory(dir_ / "elsewhere");
  fs::rename(home_ / "snapshots/s", elsewhere);
  Snapshot::Reindex(ctx_, dir_ / "elsewhere", client_);
  fs::copy(elsewhere, home_ / "snapshots/s", fs::copy_options::recursive);
  fs::remove_all(elsewhere);
  Snapshot::Remove(ctx_, elsewhere, true, client_);
  EXPECT_NO_THROW(Snapshot::Open(ctx_, "s", client_).Verify(ctx_));
  EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, elsewhere, true, client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot '" + elsewhere.native() + "' in ");
}

TEST_F(ReplaceTest, RemoveRefusesALinkToASnapshot) {
  const auto snapshot = Create("s");
  fs::create_directory_symlink("s", home_ / "snapshots/link");
  EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, home_ / "snapshots/link", false, client_),
                   ErrorKind::kInvalidArgument, "/snapshots/link is a symbolic link",
                   "remove the snapshot that it points to");
  EXPECT_EQ(Snapshot::Open(ctx_, "s", client_).Digest(), snapshot.Digest());
}

// With few descriptors left, a call may fail or not. It must leave nothing of a stage.
TEST_F(ReplaceTest, CallsThatRunOutOfDescriptorsLeaveNoStage) {
  Create("s");
  Snapshot::Export(ctx_, "s", dir_ / "s.tar.zst", {}, client_);
  const std::vector<std::function<void(Client&)>> calls = {
      [&](Client& client) { Snapshot::Create(ctx_, "b", {.name = "s", .force = true}, client); },
      [&](Client& client) { Snapshot::Export(ctx_, "s", dir_ / "out.tar.zst", {}, client); },
      [&](Client& client) { Snapshot::Import(ctx_, dir_ / "s.tar.zst", dir_ / "in", client); },
      [&](Client& client) { Snapshot::Flatten(ctx_, "s", dir_ / "out.raw", {}, client); },
      [&](Client& client) {
        CreateSandbox(ctx_, "w", {WithImage(dir_ / "base.img"), WithReplace()}, client).Close();
      },
      [&](Client& client) { Snapshot::Remove(ctx_, "s", true, client); },
  };
  for (const auto& call : calls) {
    for (int free = 2; free < 16; ++free) {
      fs::remove_all(dir_ / "in");
      const pid_t child = fork();
      if (child == 0) {
        try {
          Client own = LocalClient(home_);
          std::ignore = Snapshot::List(ctx_, own);
          LeaveDescriptors(free);
          call(own);
        } catch (const std::exception&) {
          _exit(1);
        }
        _exit(0);
      }
      int status = -1;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      EXPECT_TRUE(WIFEXITED(status));
      for (const auto& [path, content] : ListTree(dir_.path())) {
        EXPECT_EQ(path.find(".msb-stage-"), std::string::npos) << path << " " << free;
      }
    }
  }
}

TEST_F(ReplaceTest, ExportDoesNotReplaceADirectoryThatAppears) {
  Create("s");
  const fs::path out = dir_ / "out.tar.zst";
  const Context ctx = ctx_.WithProgress([&](const Progress&) {
    if (!fs::exists(out)) WriteFile(out / "file", "precious");
  });
  EXPECT_MSB_ERROR(Snapshot::Export(ctx, "s", out, {}, client_), ErrorKind::kInvalidArgument,
                   "/out.tar.zst is a directory", "only a regular file can be replaced");
  EXPECT_EQ(ReadFile(out / "file"), "precious");
}

}  // namespace
}  // namespace msb::test
