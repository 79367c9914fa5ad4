// SPDX-License-Identifier: Apache-2.0
//
// A snapshot that is pushed from one home and pulled into another one is the same there.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/registry/registry_home.h"
#include "tests/support/build.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

class RoundTripTest : public RegistryTest {
 protected:
  // Returns what a guest would read from the disk of a snapshot.
  std::string Disk(const std::string& snapshot, const Client& client) {
    Snapshot::Flatten(ctx_, snapshot, dir_ / "flat", {}, client);
    return ReadFile(dir_ / "flat");
  }

  Client here_ = Home("here");
  Client there_ = Home("there");
};

TEST_F(RoundTripTest, KeepsARawSnapshotWithItsHoles) {
  // Three chunks, one of which is all zeros. The file does not end at the end of a chunk.
  const auto pushed = MakeRaw(
      here_, "web", (20 << 20) + 4096,
      {{0, Noise(200'000, 1)}, {3 << 20, Noise(1 << 20, 2)}, {20 << 20, std::string(4096, 'e')}},
      {{"owner", "ada"}, {"stage", "post-deps"}});
  const std::string reference = Snapshot::Push(ctx_, "web", At("team/web:v1"), {}, here_);
  EXPECT_THAT(reference, StartsWith(At("team/web@sha256:")));
  EXPECT_EQ(storage().Tags("team/web")["v1"], reference.substr(reference.find('@') + 1));
  EXPECT_EQ(storage().Missing(), "");

  const auto handle = Snapshot::Pull(ctx_, At("team/web:v1"), "", {}, there_);
  const auto pulled = handle.Open(ctx_);
  ExpectSame(pushed, pulled);
  EXPECT_EQ(ExtentsOf(UpperOf(pulled)), ExtentsOf(UpperOf(pushed)));
  EXPECT_EQ(pulled.Verify(ctx_).upper.kind, "verified");
  EXPECT_EQ(Snapshot::Get(ctx_, pushed.Digest(), there_).Path(), pulled.Path());
  ExpectNoStages(dir_ / "there");
  // The reference by digest names the same.
  Client third = Home("third");
  EXPECT_EQ(Snapshot::Pull(ctx_, reference, "", {}, third).Digest(), pushed.Digest());
}

// Verification needs an integrity that only the registry's documents record.
TEST_F(RoundTripTest, KeepsASnapshotWithoutRecordedIntegrity) {
  MakeStoppedSandbox(here_, "web", dir_ / "web.img");
  const auto pushed = Snapshot::Create(ctx_, "web", {.name = "web"}, here_);
  Snapshot::Push(ctx_, "web", At("web"), {}, here_);
  const auto pulled = Snapshot::Pull(ctx_, At("web:latest"), "", {}, there_).Open(ctx_);
  ExpectSame(pushed, pulled);
  EXPECT_EQ(pulled.Integrity(), std::nullopt);
}

TEST_F(RoundTripTest, KeepsAnEmptyDisk) {
  const auto pushed = MakeRaw(here_, "empty", 64 << 20, {});
  Snapshot::Push(ctx_, "empty", At("empty"), {}, here_);
  const auto pulled = Snapshot::Pull(ctx_, At("empty"), "", {}, there_).Open(ctx_);
  ExpectSame(pushed, pulled);
  EXPECT_LE(AllocatedBytes(UpperOf(pulled)), 4096U);
}

TEST_F(RoundTripTest, KeepsAChainOfFiveWithItsImage) {
  Client here = Qcow2Home("chain");
  const auto chain = MakeChain(here, 5);
  Snapshot::Push(ctx_, "s5", At("chain:5"), {.with_image = true}, here);
  EXPECT_EQ(storage().Missing(), "");
  const auto handle = Snapshot::Pull(ctx_, At("chain:5"), "", {}, there_);
  EXPECT_EQ(handle.Digest(), chain.back().Digest());
  EXPECT_EQ(Snapshot::List(ctx_, there_).size(), 5U);
  for (const auto& pushed : chain) {
    const auto pulled = Snapshot::Get(ctx_, pushed.Digest(), there_).Open(ctx_);
    ExpectSame(pushed, pulled);
    const auto report = pulled.Verify(ctx_);
    EXPECT_EQ(report.upper.kind, "verified");
    for (const auto& file : report.backing) EXPECT_EQ(file.status.kind, "verified") << file.path;
    EXPECT_EQ(Disk(pulled.Path(), there_), Disk(pushed.Path(), here));
  }
  const std::string disk = Disk(handle.Path(), there_);
  for (int n = 1; n <= 5; ++n) EXPECT_EQ(disk[static_cast<std::size_t>(n) * 512 * 1024], n);
  // The chain can be booted and goes on.
  CreateSandbox(ctx_, "next", {WithSnapshot(handle.Path())}, there_).Close();
  EXPECT_EQ(Snapshot::Create(ctx_, "next", {.name = "s6"}, there_).Parent(), handle.Digest());
  ExpectNoStages(dir_ / "there");
}

TEST_F(RoundTripTest, LeavesTheImageOutByDefault) {
  Client here = Qcow2Home("chain");
  const auto chain = MakeChain(here, 5);
  Snapshot::Push(ctx_, "s5", At("chain:5"), {}, here);
  const auto head = Snapshot::Pull(ctx_, At("chain:5"), "", {}, there_).Open(ctx_);
  ExpectSame(chain.back(), head);
  EXPECT_MSB_ERROR(head.Verify(ctx_), ErrorKind::kSnapshotImageMissing, "base.img");
  // Once the image is there, the disk is complete.
  CreateSandbox(ctx_, "base", {WithImage(dir_ / "base.img")}, there_).Close();
  EXPECT_EQ(head.Verify(ctx_).backing.size(), 5U);
  EXPECT_EQ(Disk(head.Path(), there_), Disk("s5", here));
}

TEST_F(RoundTripTest, IncludesTheParentsOfRawDisksOnRequest) {
  MakeRaw(here_, "one", 8 << 20, {{0, Noise(5000, 1)}});
  MakeRawChild(here_, "one", "two", {{1 << 20, Noise(5000, 2)}});
  Snapshot::Push(ctx_, "two", At("raw:alone"), {}, here_);
  Snapshot::Push(ctx_, "two", At("raw:family"), {.with_parents = true}, here_);
  Snapshot::Pull(ctx_, At("raw:alone"), "", {}, there_);
  EXPECT_EQ(Snapshot::List(ctx_, there_).size(), 1U);
  Client third = Home("third");
  Snapshot::Pull(ctx_, At("raw:family"), "", {}, third);
  EXPECT_EQ(Snapshot::List(ctx_, third).size(), 2U);
}

class RegistryGenerationTest : public RoundTripTest,
                               public ::testing::WithParamInterface<std::string> {};

TEST_P(RegistryGenerationTest, KeepsASnapshotOfARelease) {
  const fs::path home = UnpackFixtureHome(GetParam(), dir_.path());
  const Client here = LocalClient(home);
  const auto pushed = Snapshot::Open(ctx_, "labelled", here);
  Snapshot::Push(ctx_, "labelled", At("fixture"), {}, here);
  const auto pulled = Snapshot::Pull(ctx_, At("fixture"), "", {}, there_).Open(ctx_);
  ExpectSame(pushed, pulled);
  EXPECT_EQ(pulled.Labels(), (Labels{{"owner", "fixture"}, {"stage", "post-deps"}}));
  EXPECT_EQ(pulled.Verify(ctx_).upper.kind, "verified");
}

TEST_P(RegistryGenerationTest, KeepsAnImageOfARelease) {
  const fs::path archive = FixturesDir() / GetParam() / "labelled-with-image.tar.zst";
  const auto pushed = Snapshot::Import(ctx_, archive, "", {}, here_).Open(ctx_);
  Snapshot::Push(ctx_, pushed.Path(), At("fixture"), {.with_image = true}, here_);
  ExpectSame(pushed, Snapshot::Pull(ctx_, At("fixture"), "", {}, there_).Open(ctx_));
  auto sent = ListTree(dir_ / "here/cache");
  auto received = ListTree(dir_ / "there/cache");
  // The VMDK refers to the other files by their paths, which are those of the new home.
  std::size_t disks = 0;
  for (const auto& [file, hash] : sent) {
    if (!file.ends_with(".vmdk")) continue;
    EXPECT_THAT(ReadFile(dir_ / "there/cache" / file), HasSubstr((dir_ / "there/cache/").native()));
    received[file] = hash;
    ++disks;
  }
  EXPECT_EQ(disks, 1U);
  EXPECT_EQ(received, sent);
}

INSTANTIATE_TEST_SUITE_P(Releases, RegistryGenerationTest, ::testing::Values("0.6.6", "0.6.18"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '.');
                           return name;
                         });

// A 0.7 snapshot of one layer travels as a descriptor, as in an archive.
TEST_F(RoundTripTest, ConvertsASnapshotOfRelease07AsAnArchiveDoes) {
  const Client here = LocalClient(UnpackFixtureHome("0.7.2", dir_.path()));
  Snapshot::Export(ctx_, "baseline:labelled", dir_ / "labelled.tar", {.plain_tar = true}, here);
  const auto imported = Snapshot::Import(ctx_, dir_ / "labelled.tar", "", {}, here_).Open(ctx_);
  Snapshot::Push(ctx_, "baseline:labelled", At("fixture"), {}, here);
  ExpectSame(imported, Snapshot::Pull(ctx_, At("fixture"), "", {}, there_).Open(ctx_));
}

TEST_F(RoundTripTest, ReturnsAPresentHeadWithoutDownloadingIt) {
  const auto pushed = MakeRaw(here_, "web", 8 << 20, {{0, Noise(4 << 20, 1)}});
  Snapshot::Push(ctx_, "web", At("web"), {}, here_);
  const auto before = ListTree(dir_ / "here/snapshots");
  TcpProxy proxy(registry().port());
  const auto handle = Snapshot::Pull(ctx_, proxy.address() + "/web", "", {}, here_);
  EXPECT_EQ(handle.Path(), pushed.Path());
  EXPECT_LT(proxy.total(), 16U << 10);
  EXPECT_EQ(ListTree(dir_ / "here/snapshots"), before);
}

TEST_F(RoundTripTest, PullsIntoAnotherDirectory) {
  Client here = Qcow2Home("chain");
  const auto chain = MakeChain(here, 2);
  Snapshot::Push(ctx_, "s2", At("chain"), {}, here);
  const auto handle = Snapshot::Pull(ctx_, At("chain"), dir_ / "elsewhere", {}, here);
  EXPECT_THAT(handle.Path(), StartsWith((dir_ / "elsewhere").native()));
  // The directory gets copies of all snapshots of the chain.
  EXPECT_EQ(Snapshot::ListDir(ctx_, dir_ / "elsewhere", here).size(), 2U);
  ExpectSame(chain.back(), Snapshot::Open(ctx_, handle.Path(), here));
  ExpectNoStages(dir_ / "elsewhere");
}

TEST_F(RoundTripTest, TwoPullsOfTheSameSnapshotBothSucceed) {
  const auto pushed =
      MakeRaw(here_, "web", 24 << 20, {{0, Noise(3 << 20, 1)}, {16 << 20, Noise(3 << 20, 2)}});
  Snapshot::Push(ctx_, "web", At("web"), {}, here_);
  std::string other;
  std::jthread thread([&] {
    const Client client = Home("there");
    try {
      other = Snapshot::Pull(ctx_, At("web"), "", {}, client).Path();
    } catch (const Error& e) {
      other = e.what();
    }
  });
  const auto pulled = Snapshot::Pull(ctx_, At("web"), "", {}, there_).Open(ctx_);
  thread.join();
  EXPECT_EQ(other, pulled.Path());
  ExpectSame(pushed, pulled);
  EXPECT_EQ(Snapshot::ListDir(ctx_, "", there_).size(), 1U);
  ExpectNoStages(dir_ / "there");
}

// The name of the tag is free; the registry keeps each snapshot under its own tag as well.
TEST_F(RoundTripTest, ReplacesWhatTheTagNamed) {
  MakeRaw(here_, "one", 8 << 20, {{0, Noise(5000, 1)}});
  const auto second = MakeRawChild(here_, "one", "two", {{0, Noise(5000, 2)}});
  const std::string first = Snapshot::Push(ctx_, "one", At("web:stable"), {}, here_);
  Snapshot::Push(ctx_, "two", At("web:stable"), {}, here_);
  EXPECT_EQ(Snapshot::Pull(ctx_, At("web:stable"), "", {}, there_).Digest(), second.Digest());
  EXPECT_EQ(Snapshot::Pull(ctx_, first, "", {}, there_).Digest(), second.Parent());
}

}  // namespace
}  // namespace msb::test
