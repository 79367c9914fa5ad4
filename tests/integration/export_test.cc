// SPDX-License-Identifier: Apache-2.0
//
// Tests that Export writes an archive that imports as the same snapshot and that any other tool
// reads as a tar archive, and nothing at all if it fails.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <mutex>

#include "tests/support/qcow2_sample.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::HasSubstr;
using ::testing::StartsWith;

using Data = std::vector<std::pair<std::uint64_t, std::string>>;

constexpr std::uint64_t kMiB = 1 << 20;

struct SampleDisk {
  std::string name;
  std::uint64_t size = 0;
  Data data;
};

// Returns a disk with count blocks of 4 KiB, each followed by a hole of 4 KiB.
SampleDisk Scattered(std::string name, std::size_t count) {
  SampleDisk disk{std::move(name), count * 8192, {}};
  for (std::size_t i = 0; i < count; ++i) {
    disk.data.emplace_back(i * 8192, Noise(4096, static_cast<std::uint32_t>(i)));
  }
  return disk;
}

std::vector<SampleDisk> Disks() {
  return {
      {"empty", 0, {}},
      {"one byte", 1, {{0, "x"}}},
      {"all hole", 16 * kMiB, {}},
      {"dense", 5 * kMiB, {{0, Noise(5 * kMiB, 1)}}},
      {"unaligned tail", 3 * kMiB + 777, {{2 * kMiB, Noise(kMiB + 777, 2)}}},
      {"unaligned hole", 4 * kMiB + 13, {{4096, Noise(4096, 3)}}},
      {"sparse 4 GiB", 4096 * kMiB, {{4096, Noise(70000, 4)}, {4000 * kMiB, Noise(kMiB, 5)}}},
      Scattered("4 extents", 4),
      Scattered("25 extents", 25),
      Scattered("26 extents", 26),
      Scattered("10,000 extents", 10000),
  };
}

void ExpectSameDisk(const fs::path& found, const fs::path& expected) {
  ASSERT_EQ(fs::file_size(found), fs::file_size(expected));
  const auto extents = ExtentsOf(expected);
  EXPECT_EQ(ExtentsOf(found), extents);
  std::ifstream a(found, std::ios::binary);
  std::ifstream b(expected, std::ios::binary);
  for (const auto& [offset, length] : extents) {
    std::string bytes_a(length, '\0');
    std::string bytes_b(length, '\0');
    a.seekg(static_cast<std::streamoff>(offset));
    b.seekg(static_cast<std::streamoff>(offset));
    ASSERT_TRUE(a.read(bytes_a.data(), static_cast<std::streamsize>(length)));
    ASSERT_TRUE(b.read(bytes_b.data(), static_cast<std::streamsize>(length)));
    ASSERT_EQ(bytes_a == bytes_b, true) << "other content at " << offset;
  }
}

class ExportTest : public ::testing::Test {
 protected:
  ExportTest() { MakeStoppedSandbox(client_, "baseline", dir_ / "base.img"); }

  // Makes a snapshot of a sandbox with this disk.
  SnapshotArtifact MakeSnapshot(const std::string& name, const SampleDisk& disk, Client& client,
                                bool record_integrity = true) {
    MakeSparseFile(GetSandbox(ctx_, "baseline", client).Upper().path, disk.size, disk.data);
    return Snapshot::Create(ctx_, "baseline",
                            {.name = name,
                             .labels = {{"stage", "post-deps"}, {"\"odd\"", "ü\n"}},
                             .record_integrity = record_integrity},
                            client);
  }
  SnapshotArtifact MakeSnapshot(const std::string& name) {
    return MakeSnapshot(name, {"", 2 * kMiB, {{4096, Noise(9000, 7)}}}, client_);
  }

  Client OfGeneration(Generation generation) const {
    return Client(Config{.home = dir_ / "home", .backend = "local", .generation = generation});
  }

  // Imports into a home that was never used.
  std::pair<SnapshotArtifact, Client> ImportElsewhere(const fs::path& archive) {
    Client other = LocalClient(dir_ / ("other-" + std::to_string(others_++)), &log_);
    const auto handle = Snapshot::Import(ctx_, archive, "", other);
    auto artifact = handle.Open(ctx_);
    EXPECT_EQ(artifact.Digest(), handle.Digest());
    return {std::move(artifact), std::move(other)};
  }

  void ExpectRoundTrip(const SnapshotArtifact& snapshot, const SnapshotExportOptions& options,
                       Client& client) {
    const fs::path archive = dir_ / "archive";
    Snapshot::Export(ctx_, snapshot.Path(), archive, options, client);
    const auto [imported, other] = ImportElsewhere(archive);
    EXPECT_EQ(imported.Digest(), snapshot.Digest());
    EXPECT_EQ(imported.Labels(), snapshot.Labels());
    EXPECT_EQ(imported.CreatedAt(), snapshot.CreatedAt());
    EXPECT_EQ(imported.Parent(), snapshot.Parent());
    EXPECT_EQ(imported.Format(), snapshot.Format());
    EXPECT_EQ(imported.Verify(ctx_).digest, snapshot.Digest());
    const std::string file = "upper." + std::string(snapshot.Format() == "raw" ? "ext4" : "qcow2");
    ExpectSameDisk(fs::path(imported.Path()) / file, fs::path(snapshot.Path()) / file);
    EXPECT_TRUE(log_.empty()) << log_.front();
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  std::vector<std::string> log_;
  Client client_ = LocalClient(dir_ / "home", &log_);
  int others_ = 0;
};

TEST_F(ExportTest, DescriptorsComeBackExactlyTheSame) {
  int n = 0;
  for (const SampleDisk& disk : Disks()) {
    SCOPED_TRACE(disk.name);
    const auto snapshot = MakeSnapshot("s" + std::to_string(n++), disk, client_);
    ExpectRoundTrip(snapshot, {}, client_);
    ExpectRoundTrip(snapshot, {.plain_tar = true}, client_);
  }
}

TEST_F(ExportTest, ManifestsComeBackExactlyTheSameSparseAndDense) {
  Client client = OfGeneration(Generation::kManifest);
  int n = 0;
  for (const SampleDisk& disk : Disks()) {
    SCOPED_TRACE(disk.name);
    // The algorithm of this generation hashes the 4 GiB of holes too, which takes a while.
    const bool record_integrity = disk.size < 64 * kMiB;
    const auto snapshot = MakeSnapshot("s" + std::to_string(n++), disk, client, record_integrity);
    ExpectRoundTrip(snapshot, {.sparse = true}, client);
    ExpectRoundTrip(snapshot, {.plain_tar = true}, client);
  }
}

TEST_F(ExportTest, ZerosThatAreDataStayDataInASparseEntry) {
  const auto snapshot =
      MakeSnapshot("zeros", {"", kMiB, {{0, std::string(8192, '\0')}, {65536, "x"}}}, client_);
  ExpectRoundTrip(snapshot, {}, client_);
}

TEST_F(ExportTest, AQcow2UpperIsCarriedAsTheFileThatItIs) {
  WriteFile(dir_ / "base.qcow2", Qcow2Sample(Noise(200000, 9)));
  CreateSandbox(ctx_, "cow", {WithImage(dir_ / "base.qcow2")}, client_).Close();
  const auto snapshot =
      Snapshot::Create(ctx_, "cow", {.name = "cow", .record_integrity = true}, client_);
  ASSERT_EQ(snapshot.Format(), "qcow2");
  // The image is needed to verify it there.
  ExpectRoundTrip(snapshot, {.with_image = true}, client_);
}

TEST_F(ExportTest, ExportsAChainOfFiveWithItsParents) {
  std::vector<SnapshotArtifact> chain = {MakeSnapshot("s0")};
  for (int i = 1; i < 5; ++i) {
    const std::string name = "worker" + std::to_string(i);
    CreateSandbox(ctx_, name, {WithSnapshot("s" + std::to_string(i - 1))}, client_).Close();
    PatchFile(GetSandbox(ctx_, name, client_).Upper().path, 0, name);
    chain.push_back(Snapshot::Create(ctx_, name, {.name = "s" + std::to_string(i)}, client_));
  }
  Snapshot::Export(ctx_, "s4", dir_ / "chain.tar.zst", {.with_parents = true}, client_);
  auto [head, other] = ImportElsewhere(dir_ / "chain.tar.zst");
  EXPECT_EQ(head.Digest(), chain[4].Digest());
  EXPECT_EQ(Snapshot::List(ctx_, other).size(), 5U);
  for (const SnapshotArtifact& snapshot : chain) {
    const auto imported = Snapshot::Get(ctx_, snapshot.Digest(), other).Open(ctx_);
    EXPECT_EQ(imported.Parent(), snapshot.Parent());
    ExpectSameDisk(imported.Path() + "/upper.ext4", snapshot.Path() + "/upper.ext4");
  }
  // The other home can export it again, under its name there.
  const std::string name = *Snapshot::Get(ctx_, head.Digest(), other).Name();
  Snapshot::Export(ctx_, name, dir_ / "again.tar.zst", {.with_parents = true}, other);
  EXPECT_EQ(ImportElsewhere(dir_ / "again.tar.zst").first.Digest(), chain[4].Digest());
}

TEST_F(ExportTest, AMissingParentIsNamedAndNothingIsWritten) {
  const auto parent = MakeSnapshot("parent");
  CreateSandbox(ctx_, "worker", {WithSnapshot("parent")}, client_).Close();
  Snapshot::Create(ctx_, "worker", {.name = "child"}, client_);
  Snapshot::Remove(ctx_, "parent", true, client_);
  fs::create_directory(dir_ / "out");
  try {
    Snapshot::Export(ctx_, "child", dir_ / "out/x", {.with_parents = true}, client_);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kSnapshotNotFound);
    EXPECT_THAT(e.what(), HasSubstr(parent.Digest()));
  }
  EXPECT_TRUE(ListTree(dir_ / "out").empty());
  Snapshot::Export(ctx_, "child", dir_ / "out/x", {}, client_);
  EXPECT_TRUE(fs::exists(dir_ / "out/x"));
}

TEST_F(ExportTest, WithItsDiskImageASnapshotBootsWhereThatNeverWas) {
  const auto snapshot = MakeSnapshot("s");
  Snapshot::Export(ctx_, "s", dir_ / "s.tar.zst", {.with_image = true}, client_);
  fs::remove(dir_ / "base.img");
  auto [imported, other] = ImportElsewhere(dir_ / "s.tar.zst");
  CreateSandbox(ctx_, "from-snapshot", {WithSnapshot(imported.Path())}, other).Close();
  CreateSandbox(ctx_, "from-image", {WithImage(snapshot.ImageManifestDigest())}, other).Close();
  EXPECT_EQ(ReadFile(GetSandbox(ctx_, "from-snapshot", other).Upper().path),
            ReadFile(snapshot.Path() + "/upper.ext4"));
}

TEST_F(ExportTest, AnImageThatIsGoneIsNamedAndNothingIsWritten) {
  const auto snapshot = MakeSnapshot("s");
  fs::remove_all(dir_ / "home/cache");
  fs::create_directory(dir_ / "out");
  EXPECT_MSB_ERROR(Snapshot::Export(ctx_, "s", dir_ / "out/x", {.with_image = true}, client_),
                   ErrorKind::kSnapshotImageMissing, "image '" + (dir_ / "base.img").native() + "'",
                   "is not in ", "/home/cache");
  EXPECT_TRUE(ListTree(dir_ / "out").empty());
}

TEST_F(ExportTest, ADamagedDiskImageIsNotExported) {
  const std::string digest = MakeSnapshot("s").ImageManifestDigest();
  const fs::path image = dir_ / ("home/cache/disks/sha256_" + digest.substr(7) + ".raw");
  fs::permissions(image, fs::perms::owner_write, fs::perm_options::add);
  PatchFile(image, 0, "damage");
  fs::create_directory(dir_ / "out");
  EXPECT_MSB_ERROR(Snapshot::Export(ctx_, "s", dir_ / "out/x", {.with_image = true}, client_),
                   ErrorKind::kSnapshotIntegrity, "sha256_" + digest.substr(7) + ".raw is damaged",
                   "remove the file and add the image again");
  EXPECT_TRUE(ListTree(dir_ / "out").empty());
}

TEST_F(ExportTest, OtherToolsListAndUnpackIt) {
  const auto snapshot = MakeSnapshot("s", Scattered("", 300), client_);
  Snapshot::Export(ctx_, "s", dir_ / "s.tar.zst", {}, client_);
  Snapshot::Export(ctx_, "s", dir_ / "s.tar", {.plain_tar = true}, client_);
  const std::string hex = snapshot.Digest().substr(7);
  const std::string members =
      "snapshots/" + hex + "/snapshot.json\nfiles/" + hex + "/upper.ext4\narchive.json\n";
  const std::string archive = dir_ / "s.tar";
  EXPECT_EQ(RunCommand("tar tf " + archive).output, members);
  EXPECT_EQ(RunCommand("bsdtar tf " + archive).output, members);
  EXPECT_EQ(RunCommand("zstd -dc " + archive + ".zst | cmp - " + archive).output, "");
  const fs::path unpacked = dir_ / "unpacked";
  fs::create_directory(unpacked);
  EXPECT_EQ(RunCommand("tar -xSf " + archive + " -C " + unpacked.native()).output, "");
  ExpectSameDisk(unpacked / "files" / hex / "upper.ext4", snapshot.Path() + "/upper.ext4");
}

TEST_F(ExportTest, IsOneFrameWithAChecksumAndTheSameBytesEachTime) {
  MakeSnapshot("s", {"", 64 * kMiB, {{0, Noise(20 * kMiB, 1)}}}, client_);
  std::vector<std::string> archives;
  for (const unsigned threads : {0U, 1U, 3U}) {
    Snapshot::Export(ctx_, "s", dir_ / "s.tar.zst", {.threads = threads}, client_);
    archives.push_back(ReadFile(dir_ / "s.tar.zst"));
  }
  EXPECT_EQ(archives[0] == archives[1], true);
  EXPECT_EQ(archives[0] == archives[2], true);
  EXPECT_THAT(RunCommand("zstd -lv " + (dir_ / "s.tar.zst").native()).output,
              ::testing::AllOf(HasSubstr("# Zstandard Frames: 1"), HasSubstr("Check: XXH64")));
}

TEST_F(ExportTest, ADenseEntryOfAPlainTarLeavesHolesInTheArchiveItself) {
  Client client = OfGeneration(Generation::kManifest);
  MakeSnapshot("s", {"", 512 * kMiB, {{kMiB, Noise(4096, 1)}}}, client, false);
  Snapshot::Export(ctx_, "s", dir_ / "s.tar", {.plain_tar = true}, client);
  struct stat status;
  ASSERT_EQ(stat((dir_ / "s.tar").c_str(), &status), 0);
  EXPECT_GT(status.st_size, static_cast<off_t>(512 * kMiB));
  EXPECT_LT(status.st_blocks * 512, static_cast<off_t>(kMiB));
}

TEST_F(ExportTest, HigherLevelsAreSmaller) {
  std::string text;
  const std::string noise = Noise(100000, 1);
  for (const char c : noise) text += "word " + std::to_string(static_cast<unsigned char>(c) % 50);
  MakeSnapshot("s", {"", 2 * kMiB, {{0, text}}}, client_);
  Snapshot::Export(ctx_, "s", dir_ / "fast", {.level = 1}, client_);
  Snapshot::Export(ctx_, "s", dir_ / "small", {.level = 19}, client_);
  EXPECT_LT(fs::file_size(dir_ / "small"), fs::file_size(dir_ / "fast"));
  EXPECT_EQ(ImportElsewhere(dir_ / "small").first.Digest(),
            Snapshot::Open(ctx_, "s", client_).Digest());
}

TEST_F(ExportTest, ReplacesAFileButNothingElse) {
  MakeSnapshot("s");
  const fs::path out = dir_ / "out";
  fs::create_directory(out);
  WriteFile(out / "file", "old");
  fs::create_directory(out / "directory");
  fs::create_symlink("file", out / "link");
  Snapshot::Export(ctx_, "s", out / "file", {}, client_);
  EXPECT_THAT(ReadFile(out / "file"), StartsWith("\x28\xb5\x2f\xfd"));
  const auto before = ListTree(out);
  for (const char* name : {"directory", "link"}) {
    EXPECT_MSB_ERROR(Snapshot::Export(ctx_, "s", out / name, {}, client_),
                     ErrorKind::kInvalidArgument,
                     "/" + std::string(name) + " must be absent or a regular file, but is a ",
                     "choose another path");
  }
  EXPECT_MSB_ERROR(Snapshot::Export(ctx_, "s", out / "file/x", {}, client_), ErrorKind::kIO,
                   "/out/file: ", "correct the path");
  for (const int level : {0, 20, -5}) {
    EXPECT_MSB_ERROR(Snapshot::Export(ctx_, "s", out / "x", {.level = level}, client_),
                     ErrorKind::kInvalidArgument,
                     "compression level " + std::to_string(level) + " is invalid", "from 1 to 19");
  }
  EXPECT_MSB_ERROR(Snapshot::Export(ctx_, "absent", out / "x", {}, client_),
                   ErrorKind::kSnapshotNotFound, "no snapshot at ", "/snapshots/absent");
  EXPECT_EQ(ListTree(out), before);
}

// Another program may create a directory there while the archive is written.
TEST_F(ExportTest, DoesNotReplaceADirectoryThatAppearsMeanwhile) {
  MakeSnapshot("s");
  const fs::path out = dir_ / "out";
  fs::create_directory(out);
  const Context meddling = ctx_.WithProgress([&](const Progress&) {
    fs::create_directory(out / "x");
    WriteFile(out / "x/thesis", "precious");
  });
  EXPECT_MSB_ERROR(Snapshot::Export(meddling, "s", out / "x", {}, client_),
                   ErrorKind::kInvalidArgument, "/out/x is a directory",
                   "only a regular file can be replaced");
  EXPECT_EQ(ReadFile(out / "x/thesis"), "precious");
  EXPECT_EQ(ListTree(out).size(), 2U);
}

TEST_F(ExportTest, RefusesToReplaceAnExportedFile) {
  const auto snapshot = MakeSnapshot("s");
  const auto before = ListTree(dir_ / "home/snapshots");
  for (const char* name : {"upper.ext4", "snapshot.json", "new"}) {
    EXPECT_MSB_ERROR(Snapshot::Export(ctx_, "s", fs::path(snapshot.Path()) / name, {}, client_),
                     ErrorKind::kInvalidArgument, "/snapshots/s is a snapshot",
                     "write it elsewhere");
  }
  const fs::path image =
      dir_ / ("home/cache/disks/sha256_" + snapshot.ImageManifestDigest().substr(7) + ".raw");
  const std::string content = ReadFile(image);
  EXPECT_MSB_ERROR(Snapshot::Export(ctx_, "s", image, {.with_image = true}, client_),
                   ErrorKind::kInvalidArgument, image.filename().native(), "keeps its cache in");
  fs::create_hard_link(image, dir_ / "link.raw");
  EXPECT_MSB_ERROR(Snapshot::Export(ctx_, "s", dir_ / "link.raw", {.with_image = true}, client_),
                   ErrorKind::kInvalidArgument, "link.raw is one of the files to export",
                   "choose another path");
  EXPECT_EQ(ReadFile(image) == content, true);
  EXPECT_EQ(ListTree(dir_ / "home/snapshots"), before);
}

TEST_F(ExportTest, KeepsTheModeOfTheArchiveThatItReplaces) {
  MakeSnapshot("s");
  WriteFile(dir_ / "x", "old");
  fs::permissions(dir_ / "x", fs::perms::owner_read | fs::perms::owner_write);
  Snapshot::Export(ctx_, "s", dir_ / "x", {}, client_);
  EXPECT_EQ(fs::status(dir_ / "x").permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(ExportTest, AHoleOfADenseEntryDoesNotKeepItFromStopping) {
  Client client = OfGeneration(Generation::kManifest);
  MakeSnapshot("s", {"", std::uint64_t{1} << 40, {}}, client, false);
  EXPECT_MSB_ERROR(Snapshot::Export(ctx_.WithTimeout(std::chrono::milliseconds(50)), "s",
                                    dir_ / "x", {}, client),
                   ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_FALSE(fs::exists(dir_ / "x"));
}

TEST_F(ExportTest, ACopyBesideTheHomeDoesNotTakeTheNameOfTheFirst) {
  const auto snapshot = MakeSnapshot("s");
  Snapshot::Export(ctx_, "s", dir_ / "x", {}, client_);
  const auto copy = Snapshot::Import(ctx_, dir_ / "x", dir_ / "dest", client_);
  EXPECT_EQ(copy.Digest(), snapshot.Digest());
  EXPECT_NE(copy.Path(), snapshot.Path());
  EXPECT_EQ(Snapshot::Get(ctx_, "s", client_).Path(), snapshot.Path());
  EXPECT_EQ(Snapshot::Get(ctx_, snapshot.Digest(), client_).Path(), snapshot.Path());
}

// Import would refuse the archive, and a guest could read the file that the disk names.
TEST_F(ExportTest, AQcow2DiskThatNamesAnotherFileDoesNotGoOut) {
  WriteFile(dir_ / "base.qcow2", Qcow2Sample("base"));
  CreateSandbox(ctx_, "cow", {WithImage(dir_ / "base.qcow2")}, client_).Close();
  const std::string upper =
      Snapshot::Create(ctx_, "cow", {.name = "cow"}, client_).Path() + "/upper.qcow2";
  const auto expect_refusal = [&](ErrorKind kind, const char* found) {
    for (const bool with_image : {false, true}) {
      EXPECT_MSB_ERROR(
          Snapshot::Export(ctx_, "cow", dir_ / "x", {.with_image = with_image}, client_), kind,
          "/cow/upper.qcow2", found);
      EXPECT_FALSE(fs::exists(dir_ / "x"));
    }
  };
  PatchFile(upper, 8, std::string("\0\0\0\0\0\0\2\0\0\0\0\x0b", 12));
  PatchFile(upper, 0x200, "/etc/shadow");
  expect_refusal(ErrorKind::kSnapshotIntegrity, "is backed by '/etc/shadow'");
  PatchFile(upper, 79, "\4");  // Now the data is in another file.
  expect_refusal(ErrorKind::kUnsupportedOperation, "to convert it, run qemu-img convert");
}

TEST_F(ExportTest, ReportsProgressAndEndsAtOnceWhenCancelled) {
  MakeSnapshot("s", {"", 64 * kMiB, {{0, Noise(40 * kMiB, 1)}}}, client_);
  fs::create_directory(dir_ / "out");
  std::mutex mutex;
  std::vector<Progress> reports;
  const auto record = [&](const Progress& progress) {
    const std::lock_guard lock(mutex);
    EXPECT_EQ(progress.phase, "export");
    reports.push_back({"", progress.bytes_done, progress.bytes_total});
  };
  Snapshot::Export(ctx_.WithProgress(record), "s", dir_ / "out/x", {}, client_);
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back().bytes_done, 40 * kMiB);
  for (const Progress& report : reports) EXPECT_EQ(report.bytes_total, 40 * kMiB);

  fs::remove(dir_ / "out/x");
  const auto [cancelled, cancel] = ctx_.WithCancel();
  const Context stopping = cancelled.WithProgress([cancel = cancel](const Progress&) { cancel(); });
  EXPECT_MSB_ERROR(Snapshot::Export(stopping, "s", dir_ / "out/x", {}, client_),
                   ErrorKind::kCancelled, "cancelled");
  EXPECT_TRUE(ListTree(dir_ / "out").empty());
}

}  // namespace
}  // namespace msb::test
