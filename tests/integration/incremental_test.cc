// SPDX-License-Identifier: Apache-2.0
//
// What an archive carries of a chain of overlays, and what Import requires the receiver to have.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "src/artifact/manifest.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr std::uint64_t kGrownDiskBytes = 8 << 20;

// a <- b <- c, overlays of an image. Each has 64 KiB written at an offset of its own.
class IncrementalTest : public ::testing::Test {
 protected:
  IncrementalTest() {
    MakeSparseFile(dir_ / "base.img", kGrownDiskBytes, {{0, Noise(70'000, 1)}});
    CreateSandbox(ctx_, "w", {WithImage(dir_ / "base.img")}, client_).Close();
    for (const std::string name : {"a", "b", "c"}) {
      const auto run = RunCommand("qemu-io -f qcow2 -c 'write -P " + std::to_string(name[0]) + " " +
                                  std::to_string(PlaceOf(name)) + " 64k' '" +
                                  GetSandbox(ctx_, "w", client_).Upper().path + "'");
      EXPECT_EQ(run.status, 0) << run.output;
      digests_[name] =
          Snapshot::Create(ctx_, "w", {.name = name, .record_integrity = true}, client_).Digest();
    }
  }

  static std::size_t PlaceOf(const std::string& name) {
    return static_cast<std::size_t>(name[0] - 'a' + 1) << 20;
  }

  fs::path Export(const std::string& name, const SnapshotExportOptions& options) {
    const fs::path archive = dir_ / "archive";
    Snapshot::Export(ctx_, name, archive, options, client_);
    return archive;
  }

  Client Other() {
    log_.clear();
    return Client({.home = dir_ / ("other" + std::to_string(others_++)),
                   .backend = "local",
                   .log = [this](std::string_view message) { log_.emplace_back(message); }});
  }

  static std::vector<std::string> Digests(Client& client) {
    std::vector<std::string> digests;
    for (const auto& handle : Snapshot::List(Context::Background(), client)) {
      digests.push_back(handle.Digest());
    }
    return digests;
  }

  // Expects the snapshot to boot, and its disk to have what was written up to it.
  void ExpectBoots(const SnapshotHandle& handle, const std::vector<std::string>& names,
                   Client& client) {
    CreateSandbox(ctx_, "boot", {WithSnapshot(handle.Path())}, client).Close();
    Snapshot::Flatten(ctx_, handle.Path(), dir_ / "flat", {}, client);
    const std::string disk = ReadFile(dir_ / "flat");
    EXPECT_EQ(disk.substr(0, 70'000), Noise(70'000, 1));
    for (const std::string& name : names) EXPECT_EQ(disk.at(PlaceOf(name)), name[0]);
  }

  static std::string Inventory(const fs::path& archive) {
    return RunCommand("tar -xOf '" + archive.native() + "' archive.json").output;
  }

  void ExpectRefused(const fs::path& archive, ErrorKind kind, const std::string& named,
                     Client& client, const fs::path& home) {
    const auto before = ListTree(home / "snapshots");
    try {
      Snapshot::Import(ctx_, archive, "", client);
      ADD_FAILURE() << "imported";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind) << e.what();
      EXPECT_THAT(e.what(), HasSubstr(named));
    }
    EXPECT_EQ(ListTree(home / "snapshots"), before);
    EXPECT_FALSE(fs::exists(home / "cache/disks"));
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  std::vector<std::string> log_;
  Client client_{{.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kQcow2}};
  std::map<std::string, std::string> digests_;
  int others_ = 0;
};

TEST_F(IncrementalTest, ExportOfAnOverlayIncludesItsBackingFiles) {
  for (const bool with_parents : {false, true}) {
    SCOPED_TRACE(with_parents);
    const fs::path archive =
        Export("c", {.with_parents = with_parents, .with_image = true, .plain_tar = true});
    EXPECT_THAT(Inventory(archive),
                AllOf(HasSubstr(R"("completeness":"boot-complete")"),
                      HasSubstr(R"("with_parents":true)"), HasSubstr(R"("extensions":{})")));
    Client other = Other();
    const auto head = Snapshot::Import(ctx_, archive, "", other);
    EXPECT_EQ(head.Digest(), digests_["c"]);
    EXPECT_THAT(Digests(other), UnorderedElementsAre(digests_["a"], digests_["b"], digests_["c"]));
    ExpectBoots(head, {"a", "b", "c"}, other);
    EXPECT_THAT(log_, IsEmpty());
  }
}

// The parents of a raw snapshot are its history, and not part of its disk.
TEST_F(IncrementalTest, ExportOfAnOverlayOfARawSnapshotEndsThere) {
  Client raw({.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kRaw});
  CreateSandbox(ctx_, "raw", {WithSnapshot("c")}, raw).Close();
  const auto r = Snapshot::Create(ctx_, "raw", {.name = "r"}, client_);
  ASSERT_EQ(r.Format(), "raw");
  CreateSandbox(ctx_, "over", {WithSnapshot("r")}, client_).Close();
  const auto o = Snapshot::Create(ctx_, "over", {.name = "o"}, client_);
  ASSERT_EQ(o.Format(), "qcow2");
  Client other = Other();
  const auto head = Snapshot::Import(ctx_, Export("o", {}), "", other);
  EXPECT_THAT(Digests(other), UnorderedElementsAre(r.Digest(), o.Digest()));
  ExpectBoots(head, {"a", "b", "c"}, other);
  Client whole = Other();
  Snapshot::Import(ctx_, Export("o", {.with_parents = true}), "", whole);
  EXPECT_EQ(Digests(whole).size(), 5U);
}

TEST_F(IncrementalTest, SinceOmitsSnapshotsThatTheReceiverHas) {
  Client other = Other();
  Snapshot::Import(ctx_, Export("a", {.with_image = true}), "", other);
  for (const std::string& since : {std::string("a"), digests_["a"]}) {
    const fs::path archive = Export("b", {.plain_tar = true, .since = since});
    EXPECT_THAT(Inventory(archive),
                AllOf(HasSubstr(R"("completeness":"incremental")"),
                      HasSubstr(R"("extensions":{"msb.backing":[")" + digests_["a"] + R"("]})"),
                      HasSubstr(R"(,"msb.backing"]})")));
    EXPECT_LT(fs::file_size(archive), 600'000U);
  }
  Snapshot::Import(ctx_, dir_ / "archive", "", other);
  const auto head = Snapshot::Import(ctx_, Export("c", {.since = "b"}), "", other);
  EXPECT_THAT(Digests(other), UnorderedElementsAre(digests_["a"], digests_["b"], digests_["c"]));
  ExpectBoots(head, {"a", "b", "c"}, other);
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(IncrementalTest, SinceMayNameASnapshotThatOnlyTheReceiverHas) {
  Client other = Other();
  Snapshot::Import(ctx_, Export("a", {.with_image = true}), "", other);
  Snapshot::Remove(ctx_, "a", true, client_);
  EXPECT_MSB_ERROR(Export("c", {}), ErrorKind::kSnapshotNotFound,
                   "/snapshots/b has the parent " + digests_["a"], "import the parent, or reindex");
  const auto head = Snapshot::Import(ctx_, Export("c", {.since = digests_["a"]}), "", other);
  ExpectBoots(head, {"a", "b", "c"}, other);
}

TEST_F(IncrementalTest, ImportRefusesAnIncrementalArchiveWhereItsBaseIsMissing) {
  const fs::path archive = Export("c", {.with_image = true, .since = "a"});
  Client other = Other();
  ExpectRefused(archive, ErrorKind::kSnapshotNotFound, digests_["a"], other, dir_ / "other0");
  // The base is in the destination, but not in the index.
  Snapshot::Import(ctx_, Export("a", {.with_image = true}), dir_ / "dest", other);
  fs::remove_all(dir_ / "other0/db");
  Client again({.home = dir_ / "other0", .backend = "local"});
  Snapshot::Import(ctx_, Export("c", {.since = "a"}), dir_ / "dest", again);
}

TEST_F(IncrementalTest, ImportRefusesABaseThatIsIncompleteItself) {
  Client other = Other();
  Snapshot::Import(ctx_, Export("b", {.with_image = true}), "", other);
  Snapshot::Remove(ctx_, digests_["a"], true, other);
  try {
    Snapshot::Import(ctx_, Export("c", {.since = "b"}), "", other);
    ADD_FAILURE() << "imported";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kSnapshotNotFound) << e.what();
    EXPECT_THAT(e.what(), HasSubstr(digests_["a"]));
  }
  EXPECT_THAT(Digests(other), ElementsAre(digests_["b"]));
}

// The parents of a raw snapshot are only its history, but that counts too: a caller who exports
// them may rely on them.
TEST_F(IncrementalTest, SinceCutsTheHistoryOfRawSnapshots) {
  Client raw = LocalClient(dir_ / "raw");
  MakeStoppedSandbox(raw, "w", dir_ / "base.img");
  const auto a = Snapshot::Create(ctx_, "w", {.name = "a"}, raw);
  CreateSandbox(ctx_, "v", {WithSnapshot("a")}, raw).Close();
  const auto b = Snapshot::Create(ctx_, "v", {.name = "b"}, raw);
  const auto import = [&](const SnapshotExportOptions& options, Client& client) {
    Snapshot::Export(ctx_, "b", dir_ / "x", options, raw);
    return Snapshot::Import(ctx_, dir_ / "x", "", client).Digest();
  };
  Client other = Other();
  EXPECT_MSB_ERROR(
      import({.with_parents = true, .since = "a"}, other), ErrorKind::kSnapshotNotFound,
      "needs snapshot sha256:", "import that snapshot first, or export the archive again without");
  // Nothing is left out, so nothing is needed.
  EXPECT_EQ(import({.since = "a"}, other), b.Digest());
}

TEST_F(IncrementalTest, ExportRefusesSinceThatIsNotAnAncestor) {
  CreateSandbox(ctx_, "v", {WithSnapshot("a")}, client_).Close();
  Snapshot::Create(ctx_, "v", {.name = "side"}, client_);
  for (const std::string since : {"side", "c", "b"}) {
    SCOPED_TRACE(since);
    EXPECT_MSB_ERROR(Export("b", {.since = since}), ErrorKind::kInvalidArgument, "/snapshots/b");
  }
  EXPECT_MSB_ERROR(Export("b", {.since = "sha256:" + std::string(64, '0')}),
                   ErrorKind::kInvalidArgument,
                   "/snapshots/b does not descend from the snapshot in 'since', ", "sha256:000",
                   "set 'since' to one of its ancestors");
  EXPECT_MSB_ERROR(Export("b", {.since = "absent"}), ErrorKind::kSnapshotNotFound,
                   "no snapshot at ", "/snapshots/absent");
  EXPECT_FALSE(fs::exists(dir_ / "archive"));
}

// Archives of earlier versions claim to be complete, but lack the backing file of the disk.
class IncompleteTest : public IncrementalTest {
 protected:
  // Makes an incremental archive claim to be complete.
  fs::path Claiming(const std::string& name, const std::string& since) {
    const fs::path archive = Export(name, {.plain_tar = true, .since = since});
    std::string bytes = ReadFile(archive);
    const std::string needed = R"({"msb.backing":[")" + digests_[since] + R"("]})";
    Replace(bytes, needed, "{" + std::string(needed.size() - 2, ' ') + "}");
    Replace(bytes, R"("incremental")", R"("boot-complete")");
    Replace(bytes, R"(,"msb.backing"])", "]            ");
    WriteFile(archive, bytes);
    return archive;
  }

 private:
  static void Replace(std::string& bytes, const std::string& from, const std::string& to) {
    const std::size_t at = bytes.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    bytes.replace(at, from.size(), to);
  }
};

TEST_F(IncompleteTest, ImportRefusesADiskWhoseBackingFileIsMissing) {
  const fs::path archive = Claiming("c", "b");
  Client other = Other();
  ExpectRefused(archive, ErrorKind::kSnapshotNotFound, digests_["b"], other, dir_ / "other0");
  fs::rename(archive, dir_ / "claiming");
  Snapshot::Import(ctx_, Export("b", {.with_image = true}), "", other);
  ExpectBoots(Snapshot::Import(ctx_, dir_ / "claiming", "", other), {"a", "b", "c"}, other);
}

TEST_F(IncompleteTest, ImportLogsAnImageThatIsMissing) {
  Client other = Other();
  const auto head = Snapshot::Import(ctx_, Export("a", {}), "", other);
  const std::string image = Snapshot::Open(ctx_, "a", client_).ImageManifestDigest();
  EXPECT_THAT(log_, ElementsAre(AllOf(HasSubstr(image), HasSubstr("cache"))));
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "v", {WithSnapshot(head.Path())}, other),
                   ErrorKind::kSnapshotImageMissing, "/upper.qcow2 is backed by the image '",
                   "which cannot be opened");
}

// Without an inventory, only the header of the disk names the file that is needed.
TEST_F(IncompleteTest, ImportJudgesALegacyArchiveByTheHeadersOfItsDisks) {
  Client legacy({.home = dir_ / "legacy",
                 .backend = "local",
                 .generation = Generation::kManifest,
                 .upper_format = DiskFormat::kQcow2});
  CreateSandbox(ctx_, "w", {WithImage(dir_ / "base.img")}, legacy).Close();
  const auto a = Snapshot::Create(ctx_, "w", {.name = "a"}, legacy);
  const auto b = Snapshot::Create(ctx_, "w", {.name = "b"}, legacy);
  Snapshot::Export(ctx_, "b", dir_ / "since", {.since = "a"}, legacy);
  Client other = Other();
  ExpectRefused(dir_ / "since", ErrorKind::kSnapshotNotFound, a.Digest(), other, dir_ / "other0");
  Snapshot::Export(ctx_, "b", dir_ / "whole", {.with_image = true}, legacy);
  Snapshot::Import(ctx_, dir_ / "whole", "", other);
  EXPECT_THAT(Digests(other), UnorderedElementsAre(a.Digest(), b.Digest()));
}

}  // namespace
}  // namespace msb::test
