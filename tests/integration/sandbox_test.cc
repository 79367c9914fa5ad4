// SPDX-License-Identifier: Apache-2.0
//
// Sandboxes on the local backend.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

class SandboxTest : public ::testing::Test {
 protected:
  SandboxTest() { MakeSparseFile(image_, 4 << 20, {{1 << 20, Noise(70'000, 7)}}); }

  Sandbox Create(const std::string& name, std::vector<SandboxOption> more = {}) {
    more.push_back(WithImage(image_));
    return CreateSandbox(ctx_, name, more, client_);
  }

  SandboxStatus StatusOf(const std::string& name) {
    return GetSandbox(ctx_, name, client_).Status();
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path image_ = dir_ / "base.img";
  Client client_ = LocalClient(dir_ / "home");
};

TEST_F(SandboxTest, RunsUntilItIsStoppedAndMayBeStartedAgain) {
  Sandbox sandbox = Create("a");
  EXPECT_EQ(sandbox.Name(), "a");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  EXPECT_MSB_ERROR(StartSandbox(ctx_, "a", client_), ErrorKind::kSandboxStillRunning,
                   "sandbox 'a' is already running", "stop it first");
  EXPECT_MSB_ERROR(RemoveSandbox(ctx_, "a", client_), ErrorKind::kSandboxStillRunning,
                   "sandbox 'a' is running", "stop it first");
  sandbox.Stop(ctx_, {WithStopTimeout(std::chrono::seconds(1))});
  sandbox.Stop(ctx_);
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_), SandboxStatus::kStopped);
  sandbox.Close();
  Sandbox again = StartSandbox(ctx_, "a", client_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  again.Kill(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
}

TEST_F(SandboxTest, ConstAndTemporaryClientsAreAccepted) {
  const auto temporary = [this] { return LocalClient(dir_ / "home"); };
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, temporary());
  const Client client = LocalClient(dir_ / "home");
  EXPECT_EQ(GetSandbox(ctx_, "a", client).Status(), SandboxStatus::kRunning);
  sandbox.Close();
  StartSandbox(ctx_, "a", temporary()).Close();
  const SandboxHandle handle = ListSandboxes(ctx_, temporary()).at(0);
  const SnapshotArtifact snapshot = handle.Snapshot(ctx_, "s");
  EXPECT_EQ(Snapshot::Open(ctx_, "s", client).Digest(), snapshot.Digest());
  EXPECT_EQ(Snapshot::Get(ctx_, "s", temporary()).Open(ctx_).Digest(), snapshot.Digest());
  RemoveSandbox(ctx_, "a", client);
  Snapshot::Remove(ctx_, "s", /*force=*/false, temporary());
}

TEST_F(SandboxTest, AnOldHandleDoesNotEndALaterBoot) {
  Sandbox first = Create("a");
  first.Stop(ctx_);
  {
    const Sandbox second = StartSandbox(ctx_, "a", client_);
    first.Close();
    EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  }
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  // Also if the new boot is assigned to the old handle.
  Sandbox sandbox = StartSandbox(ctx_, "a", client_);
  sandbox.Stop(ctx_);
  sandbox = StartSandbox(ctx_, "a", client_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
}

TEST_F(SandboxTest, ARecordHasRoomForLaterSeals) {
  EXPECT_MSB_ERROR(Create("a", {WithLabel("k", std::string(600'000, 'v'))}),
                   ErrorKind::kInvalidArgument, "/sandboxes/a would be longer than 524288 bytes",
                   "use fewer or shorter labels");
  EXPECT_TRUE(ListTree(dir_ / "home/sandboxes").empty());
  Create("a", {WithLabel("k", std::string(500'000, 'v'))}).Close();
  StartSandbox(ctx_, "a", client_).Close();
}

TEST_F(SandboxTest, RefusesOptionsThatNoBackendSupports) {
  const std::string nul("k\0x", 3);
  EXPECT_MSB_ERROR(Create("a", {WithLabel(nul, "v")}), ErrorKind::kInvalidArgument,
                   "label 'k\\x00x' contains a NUL byte");
  EXPECT_MSB_ERROR(Create("a", {WithLabel("k", nul)}), ErrorKind::kInvalidArgument,
                   "label 'k' contains a NUL byte");
  EXPECT_MSB_ERROR(Create("a", {WithOCIUpperSize(0)}), ErrorKind::kInvalidArgument,
                   "SandboxConfig::oci_upper_size_mib must be at least 1");
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {WithImage(image_.native() + nul)}, client_),
                   ErrorKind::kInvalidArgument, "/base.imgk\\x00x' contains a NUL byte");
  EXPECT_TRUE(ListSandboxes(ctx_, client_).empty());
}

TEST_F(SandboxTest, DeletesOnlyFilesOfTheLibrary) {
  Create("a").Close();
  const fs::path home = dir_ / "home/sandboxes/a";
  const std::string crashed = "upper-0123456789abcdef.qcow2";
  for (const std::string name : {"upper.ext4.bak", "upper.raw", "sha256_mine", "notes"}) {
    WriteFile(home / name, "mine");
  }
  fs::create_directory(home / "upper-old");
  WriteFile(home / crashed, "left by a crash");
  StartSandbox(ctx_, "a", client_).Close();
  EXPECT_FALSE(fs::exists(home / crashed));
  for (const std::string name :
       {"upper.ext4.bak", "upper.raw", "sha256_mine", "notes", "upper-old", "upper.ext4"}) {
    EXPECT_TRUE(fs::exists(home / name)) << name;
  }
}

TEST_F(SandboxTest, AClosedHandleIsInvalid) {
  Sandbox sandbox = Create("a");
  sandbox.Close();
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  EXPECT_MSB_ERROR(sandbox.Close(), ErrorKind::kInvalidHandle, "the sandbox handle was closed",
                   "GetSandbox");
  EXPECT_MSB_ERROR(sandbox.Stop(ctx_), ErrorKind::kInvalidHandle, "the sandbox handle was closed",
                   "GetSandbox");
  EXPECT_MSB_ERROR(sandbox.Kill(ctx_), ErrorKind::kInvalidHandle, "the sandbox handle was closed",
                   "GetSandbox");
  EXPECT_MSB_ERROR(sandbox.Detach(ctx_), ErrorKind::kInvalidHandle, "the sandbox handle was closed",
                   "GetSandbox");
  EXPECT_MSB_ERROR(sandbox.Name(), ErrorKind::kInvalidHandle, "the sandbox handle was closed",
                   "GetSandbox");
  EXPECT_MSB_ERROR(sandbox.WaitUntilStopped(ctx_), ErrorKind::kInvalidHandle,
                   "the sandbox handle was closed", "GetSandbox");
}

TEST_F(SandboxTest, GoingOutOfScopeStopsIt) {
  { const Sandbox sandbox = Create("a"); }
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  Sandbox moved = Create("b");
  {
    const Sandbox owner = std::move(moved);
    EXPECT_EQ(StatusOf("b"), SandboxStatus::kRunning);
  }
  EXPECT_EQ(StatusOf("b"), SandboxStatus::kStopped);
  Sandbox first = Create("c");
  first = Create("d");
  EXPECT_EQ(StatusOf("c"), SandboxStatus::kStopped);
  EXPECT_EQ(StatusOf("d"), SandboxStatus::kRunning);
}

TEST_F(SandboxTest, ADetachedSandboxKeepsRunning) {
  Sandbox sandbox = Create("a");
  sandbox.Detach(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  EXPECT_MSB_ERROR(sandbox.Close(), ErrorKind::kInvalidHandle, "the sandbox handle was closed",
                   "GetSandbox");
  Create("b", {WithDetached()}).Close();
  EXPECT_EQ(StatusOf("b"), SandboxStatus::kRunning);
}

TEST_F(SandboxTest, CountsAsCrashedWhenItsProcessIsGone) {
  for (const bool detached : {false, true}) {
    const std::string name = detached ? "detached" : "attached";
    const pid_t child = fork();
    if (child == 0) {
      // The process ends without closing anything, as if killed.
      auto* leaked = new Sandbox(
          Create(name, detached ? std::vector{WithDetached()} : std::vector<SandboxOption>()));
      _exit(leaked == nullptr ? 1 : 0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
  }
  EXPECT_EQ(StatusOf("attached"), SandboxStatus::kCrashed);
  EXPECT_EQ(StatusOf("detached"), SandboxStatus::kRunning);
  Snapshot::Create(ctx_, "attached", {.name = "s"}, client_);
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "detached", {.name = "t"}, client_),
                   ErrorKind::kSnapshotSandboxRunning, "sandbox 'detached' is running",
                   "stop it first");
  StartSandbox(ctx_, "attached", client_).Close();
  EXPECT_EQ(StatusOf("attached"), SandboxStatus::kStopped);
}

TEST_F(SandboxTest, WantsExactlyOneOfImageAndSnapshot) {
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {}, client_), ErrorKind::kInvalidArgument,
                   "exactly one of image and snapshot");
  EXPECT_MSB_ERROR(Create("a", {WithSnapshot("s")}), ErrorKind::kInvalidArgument,
                   "exactly one of image and snapshot");
  EXPECT_MSB_ERROR(Create("a", {WithCPUs(0)}), ErrorKind::kInvalidArgument,
                   "SandboxConfig::cpus and memory_mib must be at least 1");
  EXPECT_MSB_ERROR(Create("a", {WithLabel("k", "\xff")}), ErrorKind::kInvalidArgument,
                   "label 'k' is not UTF-8");
  EXPECT_FALSE(fs::exists(dir_ / "home"));
}

TEST_F(SandboxTest, OptionsMayBeGivenAsAConfig) {
  const SandboxConfig config{.image = image_, .oci_upper_size_mib = 8};
  CreateSandbox(ctx_, "a", config, client_)
      .Stop(ctx_, StopConfig{.timeout = std::chrono::seconds(1)});
  EXPECT_EQ(fs::file_size(GetSandbox(ctx_, "a", client_).Upper().path), 8U << 20);
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", SandboxConfig{.image = image_}, client_),
                   ErrorKind::kSandboxAlreadyExists, "sandbox 'a' already exists",
                   "replace it with WithReplace");
  const Sandbox replaced = CreateSandbox(
      ctx_, "a", SandboxConfig{.image = image_, .replace = true, .detached = true}, client_);
  EXPECT_EQ(fs::file_size(GetSandbox(ctx_, "a", client_).Upper().path), 4U << 20);
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "b", SandboxConfig{}, client_), ErrorKind::kInvalidArgument,
                   "exactly one of image and snapshot");
  EXPECT_MSB_ERROR(
      CreateSandbox(ctx_, "b", SandboxConfig{.image = image_, .snapshot = "s"}, client_),
      ErrorKind::kInvalidArgument, "exactly one of image and snapshot");
  const SandboxHandle handle = GetSandbox(ctx_, "a", client_);
  handle.Stop(ctx_, StopConfig{.timeout = std::chrono::milliseconds(-1)});
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
}

// Every way to write a list of options means the same, although there are overloads.
TEST_F(SandboxTest, ListsOfOptionsAreNotAmbiguous) {
  const SandboxOption image = WithImage(image_);
  const auto replace = [](SandboxConfig& config) { config.replace = true; };
  const std::vector<SandboxOption> options = {image, replace};
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {}, client_), ErrorKind::kInvalidArgument,
                   "exactly one of image and snapshot");
  CreateSandbox(ctx_, "a", {image}, client_).Stop(ctx_);
  CreateSandbox(ctx_, "a", {image, WithReplace()}, client_).Stop(ctx_, {});
  CreateSandbox(ctx_, "a", {image, replace}, client_)
      .Stop(ctx_, {WithStopTimeout(std::chrono::seconds(1))});
  CreateSandbox(ctx_, "a", options, client_).Stop(ctx_, std::vector<StopOption>());
  CreateSandbox(ctx_, "a", {options}, client_).Stop(ctx_, {[](StopConfig& config) {
                                                      config.timeout = {};
                                                    }});
  CreateSandbox(ctx_, "a", {options.begin(), options.end()}, client_).Close();
  const SandboxHandle handle = GetSandbox(ctx_, "a", client_);
  handle.Stop(ctx_);
  handle.Stop(ctx_, {});
  handle.Stop(ctx_, {WithStopTimeout(std::chrono::seconds(1))});
  EXPECT_EQ(handle.Status(), SandboxStatus::kStopped);
}

TEST_F(SandboxTest, RefusesInvalidNamesImagesAndSnapshots) {
  const std::string long_name(129, 'a');
  for (const std::string& name :
       {std::string(), std::string("a/b"), std::string(".a"), std::string(".."), long_name}) {
    EXPECT_MSB_ERROR(Create(name), ErrorKind::kInvalidConfig, "sandbox name '",
                     "is invalid: it must not ");
  }
  const auto create = [&](const SandboxOption& option) {
    std::ignore = CreateSandbox(ctx_, "a", {option}, client_);
  };
  EXPECT_MSB_ERROR(create(WithImage(dir_ / "nothing")), ErrorKind::kImageNotFound,
                   "/nothing' must be the path of a disk image file", "/nothing is absent",
                   "it is absent from " + dir_.path().native() + ": create it");
  EXPECT_MSB_ERROR(create(WithImage(dir_.path())), ErrorKind::kImageNotFound,
                   dir_.path().filename().native() + "' must be the path of a disk image file",
                   "is a directory; give the path of a file");
  EXPECT_MSB_ERROR(create(WithImage("sha256:" + std::string(64, '0'))), ErrorKind::kImageNotFound,
                   "no image sha256:000", "/cache/disks");
  EXPECT_MSB_ERROR(create(WithSnapshot("nothing")), ErrorKind::kSnapshotNotFound, "no snapshot at ",
                   "/snapshots/nothing");
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "a", client_), ErrorKind::kSandboxNotFound,
                   "no sandbox 'a' in ", "/home/sandboxes");
  EXPECT_MSB_ERROR(StartSandbox(ctx_, "a", client_), ErrorKind::kSandboxNotFound, "no sandbox 'a'");
  EXPECT_MSB_ERROR(RemoveSandbox(ctx_, "a", client_), ErrorKind::kSandboxNotFound,
                   "no sandbox 'a'");
}

// Only a program that answers on the control socket is needed, so this runs without QEMU.
TEST_F(SandboxTest, ProgramThatDoesNotSpeakQmpIsAnInvalidConfig) {
  if (RunCommand("perl -v").status != 0) GTEST_SKIP() << "no perl on the PATH";
  const fs::path program = dir_ / "not-qemu";
  WriteFile(program,
            "#!/usr/bin/env perl\n"
            "my ($fd) = \"@ARGV\" =~ /server=on,wait=off,fd=(\\d+)/ or exit 1;\n"
            "open(my $server, '+<&=', $fd) or exit 1;\n"
            "my $client;\n"
            "until (accept($client, $server)) { select(undef, undef, undef, 0.01) }\n"
            "syswrite($client, \"SSH-2.0-OpenSSH_9.2\\r\\n\");\n"
            "sleep 60;\n");
  fs::permissions(program, fs::perms::owner_all);
  WriteFile(dir_ / "kernel", "kernel");
  Client client({.home = dir_ / "qemu-home",
                 .backend = "qemu",
                 .qemu = {.binary = program, .kernel = dir_ / "kernel"}});
  try {
    std::ignore = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInvalidConfig) << e.what();
    EXPECT_THAT(e.what(), testing::HasSubstr("binary"));
    EXPECT_THAT(e.what(), testing::Not(testing::HasSubstr("dmesg")));
  }
  EXPECT_TRUE(ListTree(dir_ / "qemu-home/sandboxes").empty());
}

TEST_F(SandboxTest, ANameIsTakenOnceUnlessReplaced) {
  Create("a", {WithLabel("n", "1")}).Close();
  const auto before = ListTree(dir_ / "home/sandboxes");
  EXPECT_MSB_ERROR(Create("a"), ErrorKind::kSandboxAlreadyExists, "sandbox 'a' already exists",
                   "remove it, or replace it with WithReplace");
  EXPECT_EQ(ListTree(dir_ / "home/sandboxes"), before);
  Sandbox replaced = Create("a", {WithReplace(), WithLabels({{"n", "2"}})});
  EXPECT_THAT(GetSandbox(ctx_, "a", client_).ConfigJSON(), ::testing::HasSubstr(R"("n":"2")"));
  // A directory that is not a sandbox must not be replaced.
  WriteFile(dir_ / "home/sandboxes/mine/file", "precious");
  EXPECT_MSB_ERROR(Create("mine", {WithReplace()}), ErrorKind::kSandboxAlreadyExists,
                   "/sandboxes/mine exists and is not a sandbox", "choose another name");
  EXPECT_EQ(ReadFile(dir_ / "home/sandboxes/mine/file"), "precious");
}

TEST_F(SandboxTest, AHandleOfOneThatWasReplacedLeavesTheNewOneAlone) {
  Sandbox sandbox = Create("a");
  sandbox = Create("a", {WithReplace()});
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  sandbox.Close();
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
}

TEST_F(SandboxTest, RefusesValuesThatTheRecordCannotHold) {
  const fs::path image = dir_ / "caf\xe9.img";
  WriteFile(image, Noise(4096, 1));
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {WithImage(image)}, client_),
                   ErrorKind::kInvalidArgument, "/caf\\xe9.img' is not UTF-8");
  EXPECT_MSB_ERROR(Create("a", {WithLabel("k", std::string(2 << 20, 'v'))}),
                   ErrorKind::kInvalidArgument, "/sandboxes/a would be longer than 524288 bytes",
                   "use fewer or shorter labels");
  EXPECT_TRUE(ListTree(dir_ / "home/sandboxes").empty());
}

TEST_F(SandboxTest, ASandboxWithADamagedRecordCanBeRemovedOrReplaced) {
  Create("a").Close();
  WriteFile(dir_ / "home/sandboxes/a/sandbox.json", "{");
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "a", client_), ErrorKind::kInvalidConfig,
                   "malformed record of sandbox ",
                   "/sandboxes/a: ", "restore its sandbox.json, or remove the sandbox");
  EXPECT_TRUE(ListSandboxes(ctx_, client_).empty());
  Create("a", {WithReplace()}).Close();
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  WriteFile(dir_ / "home/sandboxes/a/sandbox.json", "");
  RemoveSandbox(ctx_, "a", client_);
  EXPECT_TRUE(ListTree(dir_ / "home/sandboxes").empty());
}

TEST_F(SandboxTest, OfManyUsersOfANameOneWins) {
  std::atomic<int> created = 0;
  std::atomic<int> refused = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        try {
          Client own = LocalClient(dir_ / "home");
          CreateSandbox(ctx_, "a", {WithImage(image_), WithDetached()}, own).Close();
          ++created;
        } catch (const Error& e) {
          if (e.kind() == ErrorKind::kSandboxAlreadyExists) ++refused;
        }
      });
    }
  }
  EXPECT_EQ(created, 1);
  EXPECT_EQ(refused, 7);
  // Only the sandbox's directory, its record and its disk.
  EXPECT_EQ(ListTree(dir_ / "home/sandboxes").size(), 3U);
}

TEST_F(SandboxTest, TheUpperMayGrowButNotShrink) {
  Create("a", {WithOCIUpperSize(6)}).Close();
  const std::string upper = GetSandbox(ctx_, "a", client_).Upper().path;
  EXPECT_EQ(fs::file_size(upper), 6U << 20);
  EXPECT_EQ(ReadFile(upper).substr(0, 4 << 20), ReadFile(image_));
  EXPECT_EQ(ExtentsOf(upper), ExtentsOf(image_));
  EXPECT_MSB_ERROR(Create("b", {WithOCIUpperSize(3)}), ErrorKind::kInvalidArgument,
                   "a disk of 3 MiB is too small for sandbox 'b'", "has 4194304 bytes",
                   "oci_upper_size_mib");
  EXPECT_FALSE(fs::exists(dir_ / "home/sandboxes/b"));
}

TEST_F(SandboxTest, AnUpperMayHaveAnotherFormatThanTheImage) {
  Client client({.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kQcow2});
  CreateSandbox(ctx_, "a", {WithImage(image_)}, client).Close();
  const auto upper = GetSandbox(ctx_, "a", client).Upper();
  EXPECT_EQ(upper.format, DiskFormat::kQcow2);
  EXPECT_LT(fs::file_size(upper.path), fs::file_size(image_));
}

TEST_F(SandboxTest, TheImageIsPinnedByDigestAndKeptOnce) {
  Create("a").Close();
  Create("b").Close();
  const std::string digest = GetSandbox(ctx_, "a", client_).Upper().base_digest;
  Create("c", {}).Close();
  fs::remove(image_);
  CreateSandbox(ctx_, "d", {WithImage(digest)}, client_).Close();
  EXPECT_EQ(GetSandbox(ctx_, "d", client_).Upper().base_digest, digest);
  int images = 0;
  for (const auto& entry : fs::directory_iterator(dir_ / "home/cache/disks")) {
    if (entry.is_regular_file()) ++images;
  }
  EXPECT_EQ(images, 1);
}

TEST_F(SandboxTest, IsListedNewestFirstUntilRemoved) {
  for (const std::string name : {"b", "c", "a"}) Create(name).Close();
  fs::create_directories(dir_ / "home/sandboxes/somebody-elses");
  std::vector<std::string> names;
  for (const auto& handle : ListSandboxes(ctx_, client_)) names.push_back(handle.Name());
  EXPECT_THAT(names, ::testing::ElementsAre("a", "c", "b"));
  SandboxHandle handle = GetSandbox(ctx_, "c", client_);
  handle.Start(ctx_).Close();
  EXPECT_GE(handle.UpdatedAt(), handle.CreatedAt());
  handle.Remove(ctx_);
  EXPECT_MSB_ERROR(handle.Refresh(ctx_), ErrorKind::kSandboxNotFound, "no sandbox 'c'");
  EXPECT_EQ(ListSandboxes(ctx_, client_).size(), 2U);
  EXPECT_FALSE(fs::exists(dir_ / "home/sandboxes/c"));
}

TEST_F(SandboxTest, CopiesOfAHandleAreIndependent) {
  Sandbox sandbox = Create("a");
  SandboxHandle handle = GetSandbox(ctx_, "a", client_);
  const SandboxHandle copy = handle;
  SandboxHandle assigned = GetSandbox(ctx_, "a", client_);
  assigned = copy;
  sandbox.Close();
  handle.Refresh(ctx_);
  EXPECT_EQ(handle.Status(), SandboxStatus::kStopped);
  EXPECT_EQ(copy.Status(), SandboxStatus::kRunning);
  EXPECT_EQ(assigned.Status(), SandboxStatus::kRunning);
  const SandboxHandle moved = std::move(handle);
  EXPECT_EQ(moved.Name(), "a");
  handle = moved;
  EXPECT_EQ(handle.Upper().path, copy.Upper().path);
  // The state is behind a pointer, so it can grow without a change of the ABI.
  static_assert(sizeof(SandboxHandle) == sizeof(void*));
  static_assert(std::is_nothrow_move_constructible_v<SandboxHandle>);
}

TEST_F(SandboxTest, ARunningOneSeesItselfStoppedByAnother) {
  Sandbox sandbox = Create("a");
  std::jthread other([&] { GetSandbox(ctx_, "a", client_).Stop(ctx_); });
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_), SandboxStatus::kStopped);
}

TEST_F(SandboxTest, CancelledContextEndsNothing) {
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client_);
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(sandbox.Kill(ctx), ErrorKind::kCancelled, "cancelled");
  EXPECT_MSB_ERROR(sandbox.Stop(ctx), ErrorKind::kCancelled, "cancelled");
  EXPECT_EQ(GetSandbox(ctx_, "a", client_).Status(), SandboxStatus::kRunning);
  sandbox.Kill(ctx_);
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "a", client_).Start(ctx), ErrorKind::kCancelled, "cancelled");
  EXPECT_EQ(GetSandbox(ctx_, "a", client_).Status(), SandboxStatus::kStopped);
}

TEST_F(SandboxTest, WaitingIsCancelled) {
  const Sandbox sandbox = Create("a");
  EXPECT_MSB_ERROR(sandbox.WaitUntilStopped(ctx_.WithTimeout(std::chrono::milliseconds(1))),
                   ErrorKind::kCancelled, "deadline exceeded");
}

}  // namespace
}  // namespace msb::test
