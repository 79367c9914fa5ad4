// Archives that released runtimes wrote come in as what their homes hold, and what Export writes
// the released runtimes load and verify.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::HasSubstr;

struct Release {
  std::string version;
  std::string labelled;  // How the home calls the snapshot that was exported.
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

// The image cache but for what runtimes keep there for themselves.
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
  // Has a release load an archive into a home of its own, and verify what it loaded. Nothing if it
  // is not there to be run.
  std::optional<Loaded> LoadAndVerify(const std::string& version, const fs::path& archive) {
    const fs::path peer = PeerPath(version);
    if (peer.empty()) return std::nullopt;
    const fs::path home = dir_ / ("peer-" + std::to_string(homes_++));
    const std::string run = "MSB_HOME='" + home.native() + "' '" + peer.native() + "' snapshot ";
    const std::string load = version == "0.6.6" ? "import '" : "load '";
    const auto loaded = RunCommand(run + load + archive.native() + "'");
    EXPECT_EQ(loaded.status, 0) << version << ": " << loaded.output;
    // The last line is where it is.
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
    return fs::path(MSB_TEST_FIXTURES) / GetParam().version / name;
  }

  // The release's snapshot as it is in this home.
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

TEST_P(ArchiveTest, TheReleasesOwnArchivesComeInAsWhatItsHomeHolds) {
  for (const char* name : {"labelled.tar.zst", "labelled-with-image.tar.zst"}) {
    SCOPED_TRACE(name);
    const fs::path home = dir_ / "new" / name;
    Client client = LocalClient(home);
    ExpectImported(Snapshot::Import(ctx_, Fixture(name), "", client));
    EXPECT_MSB_ERROR(Snapshot::Import(ctx_, Fixture(name), "", client),
                     ErrorKind::kSnapshotAlreadyExists);
    const bool with_image = std::string_view(name).find("image") != std::string_view::npos;
    const auto images = with_image ? ListImages(home_) : decltype(ListImages(home_))();
    EXPECT_EQ(ListImages(home), images);
  }
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

TEST_P(ArchiveTest, ReleasesLoadAndVerifyWhatExportWrites) {
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

TEST_P(ArchiveTest, ReleasesTakeTheImageFromWhatExportWrites) {
  const fs::path archive = Export("out.tar.zst", {.with_image = true});
  const std::string version = GetParam().version == "0.6.6" ? "0.6.6" : "0.6.18";
  if (const auto loaded = LoadAndVerify(version, archive)) {
    EXPECT_EQ(ListImages(loaded->home), ListImages(home_));
  }
}

INSTANTIATE_TEST_SUITE_P(Releases, ArchiveTest, ::testing::Values(k066, k0618, k072),
                         [](const auto& test) {
                           std::string name = "v" + test.param.version;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

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
