// SPDX-License-Identifier: Apache-2.0
//
// The typical flow: install once, stop, snapshot, boot many.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/qcow2_sample.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class FlowTest : public ::testing::Test {
 protected:
  FlowTest() { MakeStoppedSandbox(client_, "baseline", dir_ / "base.img"); }

  std::string UpperOf(const std::string& sandbox) {
    return GetSandbox(ctx_, sandbox, client_).Upper().path;
  }

  void Boot(const std::string& name, const std::string& snapshot) {
    CreateSandbox(ctx_, name, {WithSnapshot(snapshot)}, client_).Close();
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  std::vector<std::string> log_;
  Client client_ = LocalClient(dir_ / "home", &log_);
};

constexpr std::uint64_t kMarkerAt = 3 << 20;

TEST_F(FlowTest, SandboxesHaveTheFilesOfTheSnapshotTheyBootFrom) {
  PatchFile(UpperOf("baseline"), kMarkerAt, "installed once");
  const auto snapshot = Snapshot::Create(
      ctx_, "baseline", {.name = "after-pip-install", .record_integrity = true}, client_);
  Boot("worker-1", "after-pip-install");
  Boot("worker-2", snapshot.Path());
  const std::string installed = ReadFile(snapshot.Path() + "/upper.ext4");
  EXPECT_EQ(installed.substr(kMarkerAt, 14), "installed once");
  EXPECT_EQ(ReadFile(UpperOf("worker-1")), installed);
  EXPECT_EQ(ReadFile(UpperOf("worker-2")), installed);
}

// Writes and reads files of the guest from outside, with debugfs(8).
TEST_F(FlowTest, AMarkerFileOfTheFirstSandboxIsFoundInTheSecond) {
  const std::string tools = "export PATH=$PATH:/usr/sbin; ";
  const std::string image = dir_ / "ext4.img";
  const std::string marker = dir_ / "marker";
  ASSERT_EQ(RunCommand(tools + "truncate -s 32M " + image + " && mkfs.ext4 -q " + image).status, 0);
  const auto debugfs = [&](const std::string& sandbox, const std::string& request) {
    return RunCommand(tools + "debugfs -w -R '" + request + "' " + UpperOf(sandbox) +
                      " 2>/dev/null")
        .output;
  };
  CreateSandbox(ctx_, "first", {WithImage(image)}, client_).Close();
  WriteFile(marker, "installed once");
  debugfs("first", "write " + marker + " marker");
  const auto snapshot =
      Snapshot::Create(ctx_, "first", {.name = "s", .record_integrity = true}, client_);
  EXPECT_EQ(snapshot.Fstype(), "ext4");
  Boot("second", "s");
  EXPECT_EQ(debugfs("second", "cat marker"), "installed once");
  debugfs("second", "rm marker");
  WriteFile(marker, "another");
  debugfs("first", "write " + marker + " more");
  EXPECT_EQ(debugfs("first", "cat marker"), "installed once");
  EXPECT_EQ(debugfs("second", "cat marker"), "");
  EXPECT_EQ(debugfs("second", "cat more"), "");
  EXPECT_EQ(snapshot.Verify(ctx_).upper.kind, "verified");
  EXPECT_EQ(RunCommand(tools + "fsck.ext4 -fn " + UpperOf("second")).status, 0);
}

TEST_F(FlowTest, SandboxesAndSnapshotGoTheirOwnWays) {
  const auto snapshot =
      Snapshot::Create(ctx_, "baseline", {.name = "s", .record_integrity = true}, client_);
  const std::string before = ReadFile(snapshot.Path() + "/upper.ext4");
  Boot("worker-1", "s");
  Boot("worker-2", "s");
  PatchFile(UpperOf("worker-1"), kMarkerAt, "one");
  PatchFile(UpperOf("worker-2"), kMarkerAt, "two");
  PatchFile(UpperOf("baseline"), kMarkerAt, "zero");
  EXPECT_EQ(ReadFile(UpperOf("worker-1")).substr(kMarkerAt, 3), "one");
  EXPECT_EQ(ReadFile(UpperOf("worker-2")).substr(kMarkerAt, 3), "two");
  EXPECT_EQ(ReadFile(snapshot.Path() + "/upper.ext4"), before);
  EXPECT_EQ(snapshot.Verify(ctx_).upper.kind, "verified");
}

TEST_F(FlowTest, HolesStayHolesAllTheWay) {
  const auto extents = ExtentsOf(dir_ / "base.img");
  const auto snapshot = Snapshot::Create(ctx_, "baseline", {.name = "s"}, client_);
  Boot("worker", "s");
  EXPECT_EQ(ExtentsOf(UpperOf("baseline")), extents);
  EXPECT_EQ(ExtentsOf(snapshot.Path() + "/upper.ext4"), extents);
  EXPECT_EQ(ExtentsOf(UpperOf("worker")), extents);
}

TEST_F(FlowTest, EveryAccessorReturnsTheRecordedValue) {
  // Times are recorded in whole seconds.
  const auto before = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  const auto snapshot = Snapshot::Create(
      ctx_, "baseline", {.name = "s", .labels = {{"stage", "post-deps"}, {"o", "\"x\"\n"}}},
      client_);
  const auto opened = Snapshot::Open(ctx_, "s", client_);
  for (const auto& artifact : {snapshot, opened}) {
    EXPECT_EQ(artifact.Path(), (dir_ / "home/snapshots/s").native());
    EXPECT_EQ(artifact.Digest(), snapshot.Digest());
    EXPECT_EQ(artifact.SizeBytes(), 8U << 20);
    EXPECT_EQ(artifact.ImageRef(), (dir_ / "base.img").native());
    EXPECT_EQ(artifact.ImageManifestDigest(),
              GetSandbox(ctx_, "baseline", client_).Upper().base_digest);
    EXPECT_EQ(artifact.Format(), "raw");
    EXPECT_EQ(artifact.Fstype(), "unknown");
    EXPECT_EQ(artifact.Parent(), std::nullopt);
    EXPECT_EQ(artifact.CreatedAt(), snapshot.CreatedAt());
    EXPECT_EQ(artifact.Labels(),
              (std::map<std::string, std::string>{{"stage", "post-deps"}, {"o", "\"x\"\n"}}));
    EXPECT_EQ(artifact.SourceSandbox(), "baseline");
  }
  const auto handle = Snapshot::Get(ctx_, "s", client_);
  EXPECT_EQ(handle.Digest(), snapshot.Digest());
  EXPECT_EQ(handle.Name(), "s");
  EXPECT_EQ(handle.ParentDigest(), std::nullopt);
  EXPECT_EQ(handle.ImageRef(), snapshot.ImageRef());
  EXPECT_EQ(handle.Format(), "raw");
  EXPECT_EQ(handle.SizeBytes(), 8U << 20);
  EXPECT_EQ(handle.Path(), snapshot.Path());
  EXPECT_GE(handle.CreatedAt(), before);
  EXPECT_LE(handle.CreatedAt(), std::chrono::system_clock::now());
  EXPECT_EQ(handle.Open(ctx_).Digest(), snapshot.Digest());
}

TEST_F(FlowTest, ASnapshotOfASandboxBootedFromOneNamesItAsParent) {
  const auto first = Snapshot::Create(ctx_, "baseline", {.name = "first"}, client_);
  Boot("worker", "first");
  EXPECT_EQ(GetSandbox(ctx_, "worker", client_).Upper().base_digest, first.Digest());
  const auto second = GetSandbox(ctx_, "worker", client_).Snapshot(ctx_, "second");
  EXPECT_EQ(second.Parent(), first.Digest());
  EXPECT_EQ(Snapshot::Get(ctx_, "second", client_).ParentDigest(), first.Digest());
  EXPECT_MSB_ERROR(
      Snapshot::Remove(ctx_, "first", false, client_), ErrorKind::kSnapshotHasChildren,
      "first (sha256:", "is the parent of second (sha256:", "remove these first, or use force");
  EXPECT_EQ(Snapshot::Open(ctx_, "first", client_).Digest(), first.Digest());
  Snapshot::Remove(ctx_, "first", true, client_);
  EXPECT_MSB_ERROR(Snapshot::Open(ctx_, "first", client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot at ", "/snapshots/first");
  EXPECT_MSB_ERROR(Snapshot::Get(ctx_, "first", client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot 'first' in the index", "call Reindex");
}

TEST_F(FlowTest, ListIsNewestFirstAndListDirByName) {
  for (const std::string name : {"c", "a", "b"}) {
    Snapshot::Create(ctx_, "baseline", {.name = name}, client_);
  }
  std::vector<std::string> listed;
  for (const auto& handle : Snapshot::List(ctx_, client_)) listed.push_back(*handle.Name());
  EXPECT_THAT(listed, ElementsAre("b", "a", "c"));
  listed.clear();
  for (const auto& artifact : Snapshot::ListDir(ctx_, dir_ / "home/snapshots", client_)) {
    listed.push_back(std::filesystem::path(artifact.Path()).filename());
  }
  EXPECT_THAT(listed, ElementsAre("a", "b", "c"));
  EXPECT_THAT(Snapshot::ListDir(ctx_, dir_ / "nowhere", client_), IsEmpty());
}

TEST_F(FlowTest, CreatesASnapshotAtAnExplicitPath) {
  const std::string path = dir_ / "elsewhere";
  const auto snapshot = GetSandbox(ctx_, "baseline", client_).SnapshotTo(ctx_, path + "/");
  EXPECT_EQ(snapshot.Path(), path);
  EXPECT_EQ(Snapshot::Open(ctx_, path, client_).Digest(), snapshot.Digest());
  EXPECT_EQ(Snapshot::Get(ctx_, path, client_).Digest(), snapshot.Digest());
  EXPECT_EQ(Snapshot::Get(ctx_, snapshot.Digest(), client_).Path(), path);
  Snapshot::Remove(ctx_, path, false, client_);
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_THAT(Snapshot::List(ctx_, client_), IsEmpty());
}

TEST_F(FlowTest, PathsMayBeGivenAsStringsViewsAndPaths) {
  const std::filesystem::path path = dir_ / "a";
  const std::string text = path;
  const std::string_view view = text;
  const auto baseline = GetSandbox(ctx_, "baseline", client_);
  for (const SnapshotCreateOptions& options :
       {SnapshotCreateOptions{.path = path}, SnapshotCreateOptions{.path = text},
        SnapshotCreateOptions{.path = std::string(view)},
        SnapshotCreateOptions{.path = text.c_str()}}) {
    EXPECT_EQ(Snapshot::Create(ctx_, "baseline", options, client_).Path(), text);
    Snapshot::Remove(ctx_, path, /*force=*/false, client_);
  }
  // Programs choose between a name and a path.
  SnapshotCreateOptions chosen;
  (text.starts_with('/') ? chosen.path : chosen.name) = text;
  EXPECT_EQ(chosen.path, text);
  EXPECT_EQ(baseline.SnapshotTo(ctx_, text.c_str()).Path(), text);
  Snapshot::Export(ctx_, path, dir_ / "a.tar", {.plain_tar = true}, client_);
  Snapshot::Export(ctx_, text, text + ".tar.zst", {}, client_);
  Snapshot::Flatten(ctx_, text, (text + ".raw").c_str(), {}, client_);
  EXPECT_EQ(Snapshot::Import(ctx_, text + ".tar", dir_ / "in", client_).Digest(),
            Snapshot::Import(ctx_, (text + ".tar.zst").c_str(), text + "-2", client_).Digest());
  EXPECT_EQ(Snapshot::ListDir(ctx_, dir_ / "in", client_).size(), 1U);
  EXPECT_EQ(Snapshot::ListDir(ctx_, (text + "-2").c_str(), client_).size(), 1U);
  EXPECT_EQ(Snapshot::Reindex(ctx_, text + "-2", client_), 1U);
  EXPECT_EQ(Snapshot::Reindex(ctx_, {}, client_), 0U);
}

TEST_F(FlowTest, ForceReplacesASnapshotAndItsRow) {
  const auto old = Snapshot::Create(ctx_, "baseline", {.name = "s"}, client_);
  PatchFile(UpperOf("baseline"), kMarkerAt, "newer");
  const auto now = Snapshot::Create(ctx_, "baseline", {.name = "s", .force = true}, client_);
  EXPECT_NE(now.Digest(), old.Digest());
  EXPECT_EQ(ReadFile(now.Path() + "/upper.ext4").substr(kMarkerAt, 5), "newer");
  ASSERT_EQ(Snapshot::List(ctx_, client_).size(), 1U);
  EXPECT_EQ(Snapshot::List(ctx_, client_)[0].Digest(), now.Digest());
  EXPECT_MSB_ERROR(old.Verify(ctx_), ErrorKind::kSnapshotNotFound, "/snapshots/s was replaced",
                   old.Digest(), "open it again");
}

TEST_F(FlowTest, VerifyReportsThatNothingWasRecorded) {
  const auto report = Snapshot::Create(ctx_, "baseline", {.name = "s"}, client_).Verify(ctx_);
  EXPECT_EQ(report.upper.kind, "not_recorded");
  EXPECT_EQ(report.upper.algorithm, "");
  EXPECT_EQ(report.upper.digest, "");
}

TEST_F(FlowTest, BothGenerationsRecordAndVerifyTheirOwnAlgorithm) {
  for (const auto& [generation, algorithm, file] :
       {std::tuple{Generation::kManifest, "msb-sparse-sha256-v1", "manifest.json"},
        std::tuple{Generation::kDescriptor, "msb-file-merkle-blake3-v1", "snapshot.json"}}) {
    Client client({.home = dir_ / "home", .backend = "local", .generation = generation});
    const auto snapshot = Snapshot::Create(
        ctx_, "baseline", {.name = "s", .force = true, .record_integrity = true}, client);
    EXPECT_TRUE(std::filesystem::exists(snapshot.Path() + "/" + file));
    EXPECT_EQ(snapshot.Verify(ctx_).upper.algorithm, algorithm);
    PatchFile(snapshot.Path() + "/upper.ext4", 7 << 20, "x");
    EXPECT_MSB_ERROR(snapshot.Verify(ctx_), ErrorKind::kSnapshotIntegrity,
                     "/snapshots/s/upper.ext4 is damaged: expected " + std::string(algorithm),
                     "but found ");
  }
}

TEST_F(FlowTest, AQcow2ImageGivesAQcow2SandboxAndSnapshot) {
  const std::string content = Noise(100'000, 3);
  WriteFile(dir_ / "base.qcow2", Qcow2Sample(content));
  CreateSandbox(ctx_, "q", {WithImage(dir_ / "base.qcow2")}, client_).Close();
  const auto snapshot = Snapshot::Create(ctx_, "q", {.name = "q"}, client_);
  EXPECT_EQ(snapshot.Format(), "qcow2");
  Boot("q2", "q");
  EXPECT_EQ(GetSandbox(ctx_, "q2", client_).Upper().format, DiskFormat::kQcow2);
  Snapshot::Flatten(ctx_, "q", dir_ / "flat", {}, client_);
  EXPECT_EQ(ReadFile(dir_ / "flat").substr(0, content.size()), content);
  EXPECT_EQ(std::filesystem::file_size(dir_ / "flat"), 2U << 20);
}

TEST_F(FlowTest, ProgressIsMonotoneAndEndsAtTheBytesOfData) {
  std::vector<std::pair<std::string, std::uint64_t>> seen;
  std::uint64_t total = 0;
  const Context ctx = ctx_.WithProgress([&](const Progress& progress) {
    seen.emplace_back(progress.phase, progress.bytes_done);
    total = progress.bytes_total;
  });
  Snapshot::Create(ctx, "baseline", {.name = "s"}, client_);
  ASSERT_FALSE(seen.empty());
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  std::uint64_t data = 0;
  for (const auto& [offset, length] : ExtentsOf(UpperOf("baseline"))) data += length;
  EXPECT_EQ(seen.back(), (std::pair<std::string, std::uint64_t>("copy", data)));
  EXPECT_EQ(total, data);
}

}  // namespace
}  // namespace msb::test
