// SPDX-License-Identifier: Apache-2.0
//
// Snapshots that take over the disk of a qcow2 sandbox: what they need, what depends on them, and
// what a failure leaves.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <stdexcept>

#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr std::uint64_t kSealedDiskBytes = 4 << 20;

// Returns the message of the error that call throws, which must be of this kind.
std::string MessageOf(ErrorKind kind, const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(kind)) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

class SealTest : public ::testing::Test {
 protected:
  SealTest() {
    MakeSparseFile(dir_ / "base.img", kSealedDiskBytes, {{0, Noise(70'000, 1)}});
    CreateSandbox(ctx_, "baseline", {WithImage(dir_ / "base.img")}, client_).Close();
  }

  static Client ClientOf(const fs::path& home) {
    return Client({.home = home,
                   .backend = "local",
                   .upper_format = DiskFormat::kQcow2,
                   .log = [](std::string_view) {}});
  }

  static void WriteAsGuest(const std::string& sandbox, int pattern, int offset_kib,
                           Client& client) {
    const std::string upper = GetSandbox(Context::Background(), sandbox, client).Upper().path;
    const auto run = RunCommand("qemu-io -f qcow2 -c 'write -P " + std::to_string(pattern) + " " +
                                std::to_string(offset_kib) + "k 64k' '" + upper + "'");
    ASSERT_EQ(run.status, 0) << run.output;
  }

  char Read(const std::string& snapshot, int offset_kib, Client& client) {
    Snapshot::Flatten(ctx_, snapshot, dir_ / "flat", {}, client);
    return ReadFile(dir_ / "flat")[static_cast<std::size_t>(offset_kib) * 1024];
  }

  SnapshotArtifact Create(const std::string& sandbox, const std::string& name) {
    return Snapshot::Create(ctx_, sandbox, {.name = name, .record_integrity = true}, client_);
  }

  void Boot(const std::string& name, const std::string& snapshot) {
    CreateSandbox(ctx_, name, {WithSnapshot(snapshot)}, client_).Close();
  }

  // Returns the sandbox's files except for its record, whose times change.
  std::map<std::string, std::string> FilesOf(const std::string& sandbox) {
    auto files = ListTree(dir_ / "home/sandboxes" / sandbox);
    std::erase_if(files, [](const auto& file) { return file.first.ends_with("sandbox.json"); });
    return files;
  }

  void ExpectWritableAndAlone(const std::string& sandbox) {
    const auto stamp = base::StampOf(fs::path(GetSandbox(ctx_, sandbox, client_).Upper().path));
    ASSERT_TRUE(stamp);
    EXPECT_EQ(stamp->mode & 0600, 0600U);
    EXPECT_EQ(stamp->links, 1U);
  }

  // Seals the sandbox in a process that ends before it publishes the snapshot.
  void CrashWhileSealing(const std::string& sandbox, const vmm::SealSpec& spec) {
    const pid_t child = fork();
    if (child == 0) {
      try {
        Client client = ClientOf(dir_ / "home");
        client.backend()->Seal(
            ctx_, sandbox, [&](const vmm::SandboxRecord&) { return spec; },
            [](const Disk&) { _exit(0); });
      } catch (...) {
      }
      _exit(1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
  }

  const Context ctx_ = Context::Background();
  const vmm::SealSpec spec_{.digest = "sha256:" + std::string(64, 'a'),
                            .artifact = "/nonexistent/snapshots/s",
                            .whole_disk = std::nullopt};
  TempDir dir_;
  Client client_ = ClientOf(dir_ / "home");
};

TEST_F(SealTest, ACopyOfTheHomeWithHardLinksSharesNothingThatIsWritten) {
  WriteAsGuest("baseline", 0x11, 1024, client_);
  for (int i = 1; i <= 3; ++i) {
    const std::string backup = dir_ / ("backup" + std::to_string(i));
    const auto copied = RunCommand("cp -al '" + (dir_ / "home").native() + "' '" + backup + "'");
    ASSERT_EQ(copied.status, 0) << copied.output;
    const std::string name = "s" + std::to_string(i);
    ASSERT_NO_THROW(Create("baseline", name));
    EXPECT_EQ(Read(name, 1024, client_), 0x11);
    // Neither of the two sees what the other one writes after its boot.
    Client other = ClientOf(backup);
    StartSandbox(ctx_, "baseline", other).Close();
    WriteAsGuest("baseline", 0x40 + i, 2048, other);
    StartSandbox(ctx_, "baseline", client_).Close();
    WriteAsGuest("baseline", 0x20 + i, 3072, client_);
    Snapshot::Create(ctx_, "baseline", {.path = backup + "/own"}, other);
    EXPECT_EQ(Read(backup + "/own", 1024, other), 0x11);
    EXPECT_EQ(Read(backup + "/own", 2048, other), 0x40 + i);
    EXPECT_EQ(Read(backup + "/own", 3072, other), i == 1 ? 0 : 0x20 + i - 1);
    EXPECT_EQ(Read(name, 3072, client_), i == 1 ? 0 : 0x20 + i - 1);
  }
  Create("baseline", "last");
  EXPECT_EQ(Read("last", 2048, client_), 0);
  EXPECT_EQ(Read("last", 3072, client_), 0x23);
}

TEST_F(SealTest, AnInterruptedSealIsRolledBackIfNothingWasPublished) {
  WriteAsGuest("baseline", 0x11, 1024, client_);
  const auto before = FilesOf("baseline");
  CrashWhileSealing("baseline", spec_);
  // The path at which the snapshot would be published cannot even be read.
  EXPECT_EQ(fs::path(GetSandbox(ctx_, "baseline", client_).Upper().path).filename(), "upper.qcow2");
  EXPECT_EQ(FilesOf("baseline"), before);
  StartSandbox(ctx_, "baseline", client_).Stop(ctx_);
  ExpectWritableAndAlone("baseline");
  Create("baseline", "s");
  EXPECT_EQ(Read("s", 1024, client_), 0x11);
}

TEST_F(SealTest, AnInterruptedSealOfTheCompleteDiskIsRolledBack) {
  WriteAsGuest("baseline", 0x11, 1024, client_);
  MakeSparseFile(dir_ / "whole", kSealedDiskBytes, {});
  const auto before = FilesOf("baseline");
  vmm::SealSpec spec = spec_;
  spec.whole_disk = Disk{dir_ / "whole", DiskFormat::kRaw, "ext4"};
  CrashWhileSealing("baseline", spec);
  EXPECT_NE(FilesOf("baseline"), before);
  StartSandbox(ctx_, "baseline", client_).Stop(ctx_);
  EXPECT_EQ(FilesOf("baseline"), before);
  Create("baseline", "s");
  EXPECT_EQ(Read("s", 1024, client_), 0x11);
}

TEST_F(SealTest, AFailedSealLeavesTheSandboxAsItWas) {
  WriteAsGuest("baseline", 0x11, 1024, client_);
  MakeSparseFile(dir_ / "whole", kSealedDiskBytes, {});
  const auto before = FilesOf("baseline");
  const auto backend = client_.backend();
  const auto fails = [](const auto&...) -> vmm::SealSpec { throw std::runtime_error("failed"); };
  const auto fails_to_publish = [](const Disk&) { throw std::runtime_error("failed"); };
  EXPECT_THROW(backend->Seal(ctx_, "baseline", fails, fails_to_publish), std::runtime_error);
  EXPECT_EQ(FilesOf("baseline"), before);
  vmm::SealSpec spec = spec_;
  const auto describe = [&](const vmm::SandboxRecord&) { return spec; };
  for (int i = 0; i < 2; ++i) {
    EXPECT_THROW(backend->Seal(ctx_, "baseline", describe, fails_to_publish), std::runtime_error);
    EXPECT_EQ(FilesOf("baseline"), before);
    ExpectWritableAndAlone("baseline");
    spec.whole_disk = Disk{dir_ / "whole", DiskFormat::kRaw, "ext4"};
  }
  spec.whole_disk->path = dir_ / "absent";
  EXPECT_THROW(backend->Seal(ctx_, "baseline", describe, fails_to_publish), Error);
  EXPECT_EQ(FilesOf("baseline"), before);
}

TEST_F(SealTest, WithoutItsParentASnapshotIsACompleteDiskThatBacksTheSandbox) {
  WriteAsGuest("baseline", 0x11, 1024, client_);
  const auto a = Create("baseline", "a");
  Boot("w", "a");
  WriteAsGuest("w", 0x22, 2048, client_);
  Snapshot::Remove(ctx_, "a", true, client_);
  const auto d = Create("w", "d");
  EXPECT_EQ(d.Format(), "raw");
  EXPECT_EQ(d.Parent(), a.Digest());
  WriteAsGuest("w", 0x33, 3072, client_);
  const auto e = Create("w", "e");
  EXPECT_EQ(e.Format(), "qcow2");
  EXPECT_EQ(e.Parent(), d.Digest());
  RemoveSandbox(ctx_, "w", client_);
  Boot("late", "d");
  for (const auto& snapshot : {d, e}) {
    EXPECT_EQ(snapshot.Verify(ctx_).upper.kind, "verified");
    EXPECT_EQ(Read(snapshot.Path(), 1024, client_), 0x11);
    EXPECT_EQ(Read(snapshot.Path(), 2048, client_), 0x22);
  }
  EXPECT_EQ(Read("e", 3072, client_), 0x33);
}

TEST_F(SealTest, WithoutAGrandparentASnapshotIsACompleteDisk) {
  WriteAsGuest("baseline", 0x11, 1024, client_);
  Create("baseline", "a");
  Create("baseline", "b");
  Snapshot::Remove(ctx_, "a", true, client_);
  EXPECT_EQ(Create("baseline", "c").Format(), "raw");
  EXPECT_EQ(Read("c", 1024, client_), 0x11);
}

TEST_F(SealTest, AParentElsewhereThatTheIndexLostIsIndexedAgain) {
  WriteAsGuest("baseline", 0x11, 1024, client_);
  const fs::path elsewhere = dir_ / "elsewhere";
  const auto a = Snapshot::Create(ctx_, "baseline", {.path = elsewhere / "a"}, client_);
  fs::remove_all(dir_ / "home/db");
  const auto b = Create("baseline", "b");
  EXPECT_EQ(b.Format(), "qcow2");
  EXPECT_EQ(b.Parent(), a.Digest());
  EXPECT_EQ(Read("b", 1024, client_), 0x11);
  EXPECT_EQ(Snapshot::Get(ctx_, a.Digest(), client_).Path(), elsewhere / "a");
  EXPECT_NO_THROW(Snapshot::Export(ctx_, "b", dir_ / "archive", {.with_parents = true}, client_));
}

TEST_F(SealTest, RecordHasThePathOfASnapshotOutsideTheHomeOnly) {
  const fs::path elsewhere = dir_ / "elsewhere";
  Client client({.home = dir_ / "home",
                 .sandboxes_dir = elsewhere / "sandboxes",
                 .backend = "local",
                 .upper_format = DiskFormat::kQcow2});
  const auto path_of = [&](const std::string& sandbox) {
    return client.backend()->Inspect(ctx_, sandbox).snapshot_path;
  };
  CreateSandbox(ctx_, "a", {WithImage(dir_ / "base.img")}, client).Close();
  // Beside the sandboxes, which are not in the home either.
  Snapshot::Create(ctx_, "a", {.path = elsewhere / "outside"}, client);
  EXPECT_EQ(path_of("a"), elsewhere / "outside");
  Snapshot::Create(ctx_, "a", {.name = "inside"}, client);
  EXPECT_EQ(path_of("a"), "");
  CreateSandbox(ctx_, "b", {WithSnapshot(elsewhere / "outside")}, client).Close();
  EXPECT_EQ(path_of("b"), elsewhere / "outside");
  CreateSandbox(ctx_, "c", {WithSnapshot("inside")}, client).Close();
  EXPECT_EQ(path_of("c"), "");
}

TEST_F(SealTest, WithAReplacedParentASnapshotIsACompleteDisk) {
  WriteAsGuest("baseline", 0x11, 1024, client_);
  CreateSandbox(ctx_, "other", {WithImage(dir_ / "base.img")}, client_).Close();
  const SnapshotCreateOptions at{.path = dir_ / "elsewhere"};
  Snapshot::Create(ctx_, "baseline", at, client_);
  fs::remove_all(at.path);
  Snapshot::Create(ctx_, "other", at, client_);
  fs::remove_all(dir_ / "home/db");
  EXPECT_EQ(Create("baseline", "b").Format(), "raw");
  EXPECT_EQ(Read("b", 1024, client_), 0x11);
}

TEST_F(SealTest, WithoutItsImageASnapshotIsACompleteDisk) {
  WriteAsGuest("baseline", 0x11, 1024, client_);
  for (const auto& entry : fs::directory_iterator(dir_ / "home/cache/disks")) {
    if (entry.is_regular_file()) fs::remove(entry.path());
  }
  EXPECT_EQ(Create("baseline", "s").Format(), "raw");
  EXPECT_EQ(Read("s", 1024, client_), 0x11);
  Boot("w", "s");
}

TEST_F(SealTest, RemoveRefusesASnapshotThatASandboxIsBackedBy) {
  Create("baseline", "a");
  RemoveSandbox(ctx_, "baseline", client_);
  Boot("w", "a");
  const auto before = ListTree(dir_ / "home/snapshots");
  EXPECT_THAT(
      MessageOf(ErrorKind::kSnapshotHasChildren,
                [&] { Snapshot::Remove(ctx_, "a", false, client_); }),
      ::testing::AllOf(HasSubstr("backed by a ("), HasSubstr(": w;"), HasSubstr("use force")));
  EXPECT_MSB_ERROR(Snapshot::Get(ctx_, "a", client_).Remove(ctx_, false),
                   ErrorKind::kSnapshotHasChildren, "backed by a (sha256:", "): w",
                   "remove them first, or use force");
  EXPECT_EQ(ListTree(dir_ / "home/snapshots"), before);
  RemoveSandbox(ctx_, "w", client_);
  EXPECT_NO_THROW(Snapshot::Remove(ctx_, "a", false, client_));
}

TEST_F(SealTest, ForceDoesNotReplaceASnapshotWhoseDiskOthersNeed) {
  Create("baseline", "a");
  Create("baseline", "b");
  RemoveSandbox(ctx_, "baseline", client_);
  CreateSandbox(ctx_, "other", {WithImage(dir_ / "base.img")}, client_).Close();
  const auto before = ListTree(dir_ / "home/snapshots");
  const auto replace = [&] {
    Snapshot::Create(ctx_, "other", {.name = "a", .force = true}, client_);
  };
  EXPECT_THAT(MessageOf(ErrorKind::kSnapshotHasChildren, replace),
              ::testing::AllOf(HasSubstr("snapshots/a cannot be replaced"),
                               HasSubstr("snapshots/b"), HasSubstr("choose another name")));
  EXPECT_EQ(ListTree(dir_ / "home/snapshots"), before);
  Boot("w", "a");
  Snapshot::Remove(ctx_, "b", true, client_);
  EXPECT_THAT(MessageOf(ErrorKind::kSnapshotHasChildren, replace), HasSubstr("sandbox 'w'"));
  RemoveSandbox(ctx_, "w", client_);
  EXPECT_NO_THROW(replace());
}

TEST_F(SealTest, ForceReplacesASnapshotWhoseChildrenHaveDisksOfTheirOwn) {
  Client raw({.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kRaw});
  Create("baseline", "a");
  CreateSandbox(ctx_, "raw", {WithSnapshot("a")}, raw).Close();
  const auto child = Snapshot::Create(ctx_, "raw", {.name = "child"}, raw);
  EXPECT_EQ(child.Format(), "raw");
  RemoveSandbox(ctx_, "baseline", client_);
  CreateSandbox(ctx_, "other", {WithImage(dir_ / "base.img")}, client_).Close();
  EXPECT_NO_THROW(Snapshot::Create(ctx_, "other", {.name = "a", .force = true}, client_));
}

}  // namespace
}  // namespace msb::test
