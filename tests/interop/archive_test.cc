// SPDX-License-Identifier: Apache-2.0
//
// Archives that released runtimes wrote are imported with the content that their homes have, and
// the released runtimes load and verify what Export writes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/build.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::HasSubstr;

struct Release {
  std::string version;
  std::string labelled;  // Name of the exported snapshot in the home.
  std::string digest;
  std::string upper;           // Below the home.
  std::string imported_upper;  // Below the imported artifact.
};

void PrintTo(const Release& release, std::ostream* out) { *out << release.version; }

const Release k066 = {
    .version = "0.6.6",
    .labelled = "labelled",
    .digest = "sha256:075646cf621e028fcdf207bd25a0dbcaf9987fe98b2461c4fdac886cd80626d8",
    .upper = "snapshots/labelled/upper.ext4",
    .imported_upper = "upper.ext4"};
const Release k067 = {
    .version = "0.6.7",
    .labelled = "labelled",
    .digest = "sha256:e9ae63187a707a41790efeff871e726822ebdd8888326f3d7eec509547893af6",
    .upper = "snapshots/labelled/upper.ext4",
    .imported_upper = "upper.ext4"};
const Release k0618 = {
    .version = "0.6.18",
    .labelled = "labelled",
    .digest = "sha256:182ae3892aaf75922cd7718458517ba700a0eeb34a06fdb6a33846393de42580",
    .upper = "snapshots/labelled/upper.ext4",
    .imported_upper = "upper.ext4"};
const Release k072 = {
    .version = "0.7.2",
    .labelled = "baseline:labelled",
    .digest = "sha256:2fcbe97d5ff704408781c12cdb45f4a37178323f94074e27898effe46255070c",
    .upper =
        "snapshots/baseline/snap_d6985e229700c6f3a1bb5d54773a53e0/layers/"
        "layer_4eb2a01245617f6da3fd71dbe36f08be.raw",
    .imported_upper = "layers/layer_4eb2a01245617f6da3fd71dbe36f08be.raw"};

const std::map<std::string, std::string> kLabels = {{"owner", "fixture"}, {"stage", "post-deps"}};

// Returns the files of images in the cache, without what the runtimes keep there for themselves.
std::map<std::string, std::string> ListImages(const fs::path& home) {
  std::map<std::string, std::string> images;
  for (const auto& [path, content] : ListTree(home / "cache")) {
    const bool image = path.starts_with("manifests/") || path.starts_with("fsmeta/") ||
                       path.starts_with("layers/");
    if (image && !path.ends_with(".lock")) images[path] = content;
  }
  return images;
}

class PeerTest : public ::testing::Test {
 protected:
  struct Loaded {
    fs::path home;
    std::string output;
  };
  // Has a release load an archive into a new home and verify the result. Returns nothing if the
  // release is not available.
  std::optional<Loaded> LoadAndVerify(const std::string& version, const fs::path& archive) {
    const fs::path peer = PeerPath(version);
    if (peer.empty()) return std::nullopt;
    const fs::path home = dir_ / ("peer-" + std::to_string(homes_++));
    const std::string run = "MSB_HOME='" + home.native() + "' '" + peer.native() + "' snapshot ";
    const std::string load = version == "0.6.6" ? "import '" : "load '";
    const auto loaded = RunCommand(run + load + archive.native() + "'");
    EXPECT_EQ(loaded.status, 0) << version << ": " << loaded.output;
    // The last line is the path.
    const std::size_t start = loaded.output.rfind('\n', loaded.output.size() - 2) + 1;
    const std::string path = loaded.output.substr(start, loaded.output.size() - start - 1);
    const auto verified = RunCommand(run + "verify '" + path + "'");
    EXPECT_EQ(verified.status, 0) << version << ": " << verified.output;
    return Loaded{home, loaded.output};
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;

 private:
  int homes_ = 0;
};

class ArchiveTest : public PeerTest, public ::testing::WithParamInterface<Release> {
 protected:
  fs::path Fixture(const std::string& name) const {
    return FixturesDir() / GetParam().version / name;
  }

  // Expects the snapshot to be the release's own.
  void ExpectImported(const SnapshotHandle& handle) {
    EXPECT_EQ(handle.Digest(), GetParam().digest);
    const auto artifact = handle.Open(ctx_);
    EXPECT_EQ(artifact.Labels(), kLabels);
    EXPECT_EQ(artifact.ImageRef(), "fixture:1");
    EXPECT_EQ(artifact.Verify(ctx_).upper.kind, "verified");
    const fs::path upper = fs::path(artifact.Path()) / GetParam().imported_upper;
    EXPECT_EQ(ReadFile(upper) == ReadFile(home_ / GetParam().upper), true);
    EXPECT_EQ(ExtentsOf(upper), ExtentsOf(home_ / GetParam().upper));
  }

  fs::path Export(const std::string& name, const SnapshotExportOptions& options) {
    const fs::path archive = dir_ / name;
    Snapshot::Export(ctx_, GetParam().labelled, archive, options, client_);
    return archive;
  }

  const fs::path home_ = UnpackFixtureHome(GetParam().version, dir_.path());
  Client client_{Config{.home = home_}};
};

TEST_P(ArchiveTest, ImportsArchivesThatTheReleaseExported) {
  for (const char* name : {"labelled.tar.zst", "labelled-with-image.tar.zst"}) {
    SCOPED_TRACE(name);
    const fs::path home = dir_ / "new" / name;
    Client client = LocalClient(home);
    ExpectImported(Snapshot::Import(ctx_, Fixture(name), "", client));
    EXPECT_MSB_ERROR(Snapshot::Import(ctx_, Fixture(name), "", client),
                     ErrorKind::kSnapshotAlreadyExists, "already exists, named '",
                     "use it, or remove it first");
    const bool with_image = std::string_view(name).find("image") != std::string_view::npos;
    const auto images = with_image ? ListImages(home_) : decltype(ListImages(home_))();
    EXPECT_EQ(ListImages(home), images);
  }
}

TEST_P(ArchiveTest, ImportRefusesASnapshotThatTheHomeHas) {
  const auto before = ListTree(home_ / "snapshots");
  try {
    Snapshot::Import(ctx_, Fixture("labelled.tar.zst"), "", client_);
    ADD_FAILURE() << "imported";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kSnapshotAlreadyExists) << e.what();
    EXPECT_THAT(e.what(), HasSubstr("named '" + GetParam().labelled + "'"));
  }
  EXPECT_EQ(ListTree(home_ / "snapshots"), before);
}

TEST_P(ArchiveTest, AnArchiveComesIntoTheHomeThatItWasMadeIn) {
  const auto images = ListTree(home_ / "cache");
  ExpectImported(
      Snapshot::Import(ctx_, Fixture("labelled-with-image.tar.zst"), dir_ / "elsewhere", client_));
  EXPECT_EQ(ListTree(home_ / "cache"), images);
}

TEST_P(ArchiveTest, TheVmdkNamesTheCacheThatItIsIn) {
  const fs::path home = dir_ / "new";
  Client client = LocalClient(home);
  Snapshot::Import(ctx_, Fixture("labelled-with-image.tar.zst"), "", client);
  const std::string vmdk = ReadFile(fs::directory_iterator(home / "cache/vmdk")->path());
  EXPECT_THAT(vmdk, HasSubstr("\"" + home.native() + "/cache/fsmeta/sha256_"));
  EXPECT_THAT(vmdk, HasSubstr("\"" + home.native() + "/cache/layers/sha256_"));
  EXPECT_THAT(vmdk, ::testing::Not(HasSubstr("/srv/msb")));
}

TEST_P(ArchiveTest, ReleasesLoadAndVerifyExportedArchives) {
  const bool manifest = GetParam().version == "0.6.6";
  const fs::path archive = Export("out.tar.zst", {});
  const fs::path plain = Export("out.tar", {.plain_tar = true});
  for (const std::string version : {"0.6.6", "0.6.18", "0.7.2"}) {
    if (version == "0.6.6" && !manifest) continue;
    for (const fs::path& file : {archive, plain}) {
      const auto loaded = LoadAndVerify(version, file);
      if (!loaded) continue;
      if (version == GetParam().version && version != "0.7.2") {
        EXPECT_THAT(loaded->output, HasSubstr(GetParam().digest));
      }
    }
    if (manifest && version != "0.6.6") {
      LoadAndVerify(version, Export("sparse.tar.zst", {.sparse = true}));
    }
  }
}

TEST_P(ArchiveTest, ReleasesTakeTheImageFromExportedArchives) {
  const fs::path archive = Export("out.tar.zst", {.with_image = true});
  const std::string version = GetParam().version == "0.6.6" ? "0.6.6" : "0.6.18";
  if (const auto loaded = LoadAndVerify(version, archive)) {
    EXPECT_EQ(ListImages(loaded->home), ListImages(home_));
  }
}

INSTANTIATE_TEST_SUITE_P(Releases, ArchiveTest, ::testing::Values(k066, k067, k0618, k072),
                         [](const auto& test) {
                           std::string name = "v" + test.param.version;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

// Three overlays of an image, each the parent of the next.
class ChainPeerTest : public PeerTest {
 protected:
  ChainPeerTest() {
    MakeSparseFile(dir_ / "base.img", 8 << 20, {{4096, Noise(70'000, 1)}});
    CreateSandbox(ctx_, "w", {WithImage(dir_ / "base.img")}, client_).Close();
    for (const std::string name : {"a", "b", "c"}) {
      digests_.push_back(
          Snapshot::Create(ctx_, "w", {.name = name, .record_integrity = true}, client_).Digest());
    }
  }

  Client client_{
      Config{.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kQcow2}};
  std::vector<std::string> digests_;
};

TEST_F(ChainPeerTest, ReleasesLoadAndVerifyAChainOfOverlays) {
  Snapshot::Export(ctx_, "c", dir_ / "c.tar.zst", {}, client_);
  const auto loaded = LoadAndVerify("0.6.18", dir_ / "c.tar.zst");
  if (!loaded) GTEST_SKIP() << "no release 0.6.18";
  EXPECT_THAT(loaded->output, HasSubstr(digests_[2]));
  EXPECT_EQ(std::distance(fs::directory_iterator(loaded->home / "snapshots"), {}), 3);
}

TEST_F(ChainPeerTest, ReleasesRefuseIncrementalArchives) {
  Snapshot::Export(ctx_, "c", dir_ / "since.tar.zst", {.since = "a"}, client_);
  for (const std::string version : {"0.6.18", "0.7.2"}) {
    const fs::path peer = PeerPath(version);
    if (peer.empty()) continue;
    const fs::path home = dir_ / ("peer" + version);
    const auto loaded = RunCommand("MSB_HOME='" + home.native() + "' '" + peer.native() +
                                   "' snapshot load '" + (dir_ / "since.tar.zst").native() + "'");
    EXPECT_NE(loaded.status, 0) << version;
    // Release 0.7 loads no qcow2 disk of this layout.
    if (version == "0.6.18") {
      EXPECT_THAT(loaded.output, HasSubstr("completeness incremental"));
    }
    EXPECT_FALSE(fs::exists(home / "snapshots" / digests_[2].substr(7))) << version;
  }
}

// Sizes and offsets from 8 GiB on do not fit the octal fields of tar.
TEST_F(PeerTest, LoadsDisksBeyondEightGiB) {
  constexpr std::uint64_t kSize = std::uint64_t{20} << 30;
  Client client = LocalClient(dir_ / "large");
  MakeStoppedSandbox(client, "baseline", dir_ / "base.img");
  MakeSparseFile(GetSandbox(ctx_, "baseline", client).Upper().path, kSize,
                 {{4096, "low"}, {(std::uint64_t{17} << 30) + 4096, "high"}});
  const auto snapshot =
      Snapshot::Create(ctx_, "baseline", {.name = "large", .record_integrity = true}, client);
  Snapshot::Export(ctx_, "large", dir_ / "large.tar.zst", {}, client);
  if (const auto loaded = LoadAndVerify("0.6.18", dir_ / "large.tar.zst")) {
    EXPECT_THAT(loaded->output, HasSubstr(snapshot.Digest()));
  }
}

}  // namespace
}  // namespace msb::test
