// SPDX-License-Identifier: Apache-2.0
//
// Homes that released runtimes wrote: the library reports them correctly, the runtime still works
// on them afterwards, and it opens and verifies what the library makes there.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <tuple>
#include <utility>

#include "tests/support/forwarding_backend.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

struct Release {
  std::string version;
  std::string plain_digest;
  std::string labelled_digest;
  std::string plain_name;  // Names by which the snapshots are opened.
  std::string labelled_name;
  std::string plain_path;  // Below the snapshots directory.
  std::string labelled_path;
  std::string labelled_created;
  std::string algorithm;
  std::optional<std::string> labelled_parent;
};

void PrintTo(const Release& release, std::ostream* out) { *out << release.version; }

constexpr const char* kSparseDigest =
    "sha256:917062a46c3df41088df6127163ac59ce9ebcf1981da05b6101e03e120df14b5";
constexpr const char* kMerkleRoot =
    "blake3:f7e0d8f21477e5147305333e9bf7343ae63bd27d908ed0a85ccf16f249e99397";
constexpr const char* kImageDigest =
    "sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac";

// The digests are those of fixtures/README.md, as the runtimes list them.
const Release k066 = {
    .version = "0.6.6",
    .plain_digest = "sha256:bd0521212377f19a10021e5210b07bee1e6840c38a7abf6ae068d02442d142d4",
    .labelled_digest = "sha256:075646cf621e028fcdf207bd25a0dbcaf9987fe98b2461c4fdac886cd80626d8",
    .plain_name = "plain",
    .labelled_name = "labelled",
    .plain_path = "plain",
    .labelled_path = "labelled",
    .labelled_created = "2026-11-23T12:58:59.450707970+00:00",
    .algorithm = "msb-sparse-sha256-v1",
    .labelled_parent = std::nullopt};
const Release k0618 = {
    .version = "0.6.18",
    .plain_digest = "sha256:aa185ae31d5b60f19ce72be2190975e0c4c676e1e13c644d4fc9ec828a40bd81",
    .labelled_digest = "sha256:182ae3892aaf75922cd7718458517ba700a0eeb34a06fdb6a33846393de42580",
    .plain_name = "plain",
    .labelled_name = "labelled",
    .plain_path = "plain",
    .labelled_path = "labelled",
    .labelled_created = "2026-11-23T12:59:23.02858503Z",
    .algorithm = "msb-file-merkle-blake3-v1",
    .labelled_parent = std::nullopt};
const Release k072 = {
    .version = "0.7.2",
    .plain_digest = "sha256:3ccf59d63b46f7834d3f43e69a1feec14db2a1e12635d8d4c1e9009f3533bf24",
    .labelled_digest = "sha256:2fcbe97d5ff704408781c12cdb45f4a37178323f94074e27898effe46255070c",
    .plain_name = "baseline:plain",
    .labelled_name = "baseline:labelled",
    .plain_path = "baseline/snap_e38b7af9964bdf5ba2de63f9db86d0a8",
    .labelled_path = "baseline/snap_d6985e229700c6f3a1bb5d54773a53e0",
    .labelled_created = "2026-11-23T12:59:30.251042852Z",
    .algorithm = "msb-file-merkle-blake3-v1",
    .labelled_parent = "snap_e38b7af9964bdf5ba2de63f9db86d0a8"};

// A backend whose stopped sandboxes seem to run, in guests that can be frozen. A live snapshot has
// the disk as it is.
class FrozenBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  std::string_view Name() const override { return "frozen"; }
  vmm::SandboxRecord Inspect(const Context& ctx, const std::string& name) override {
    vmm::SandboxRecord sandbox = ForwardingBackend::Inspect(ctx, name);
    sandbox.status = SandboxStatus::kRunning;
    return sandbox;
  }
  void SealLive(const Context& ctx, const std::string& name, LiveSnapshot /*level*/,
                const vmm::LiveSealDescriber& describe,
                const vmm::SealPublisher& publish) override {
    const vmm::SandboxRecord sandbox = Inspect(ctx, name);
    describe(sandbox, "filesystem-consistent");
    publish(*sandbox.upper);
  }
};

class FixtureTest : public ::testing::TestWithParam<Release> {
 protected:
  // Runs the released runtime on the home. Returns nothing if it is not available.
  std::optional<CommandResult> RunPeer(const std::string& arguments) {
    const fs::path peer = PeerPath(GetParam().version);
    if (peer.empty()) return std::nullopt;
    return RunCommand("MSB_HOME='" + home_.native() + "' '" + peer.native() + "' " + arguments);
  }

  // Expects the runtime to open, verify and list a snapshot of the home, if it is available.
  void ExpectRuntimeVerifies(const SnapshotArtifact& made) {
    // A 0.7 runtime gives a snapshot that it migrates another identity, and opens it by its path.
    const bool migrates = GetParam().version == "0.7.2";
    const auto verified = RunPeer("snapshot verify '" + made.Path() + "'");
    if (!verified) return;
    EXPECT_EQ(verified->status, 0) << verified->output;
    EXPECT_THAT(verified->output, HasSubstr("verified ("));
    if (migrates) return;
    EXPECT_THAT(verified->output, HasSubstr(made.Digest()));
    EXPECT_EQ(RunPeer("snapshot verify made")->status, 0);
    EXPECT_THAT(RunPeer("snapshot list --format json")->output, HasSubstr(made.Digest()));
    EXPECT_EQ(Snapshot::Open(ctx_, "made", client_).Digest(), made.Digest());
  }

  fs::path LabelledUpper() const {
    const fs::path artifact = home_ / "snapshots" / GetParam().labelled_path;
    if (fs::exists(artifact / "upper.ext4")) return artifact / "upper.ext4";
    return fs::directory_iterator(artifact / "layers")->path();
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path home_ = UnpackFixtureHome(GetParam().version, dir_.path());
  Client client_{Config{.home = home_}};
};

TEST_P(FixtureTest, OpensByNameAndPathWithEveryAccessorRight) {
  const Release& release = GetParam();
  const auto before = ListTree(home_ / "snapshots");
  const fs::path path = home_ / "snapshots" / release.labelled_path;
  for (const std::string& key : {release.labelled_name, path.native()}) {
    const auto labelled = Snapshot::Open(ctx_, key, client_);
    EXPECT_EQ(labelled.Path(), path);
    EXPECT_EQ(labelled.Digest(), release.labelled_digest);
    EXPECT_EQ(labelled.SizeBytes(), 16U << 20);
    EXPECT_EQ(labelled.ImageRef(), "fixture:1");
    EXPECT_EQ(labelled.ImageManifestDigest(), kImageDigest);
    EXPECT_EQ(labelled.Format(), "raw");
    EXPECT_EQ(labelled.Fstype(), "ext4");
    EXPECT_EQ(labelled.Parent(), release.labelled_parent);
    EXPECT_EQ(labelled.CreatedAt(), release.labelled_created);
    EXPECT_EQ(labelled.Labels(),
              (std::map<std::string, std::string>{{"owner", "fixture"}, {"stage", "post-deps"}}));
    EXPECT_EQ(labelled.SourceSandbox(), "baseline");
  }
  const auto plain = Snapshot::Open(ctx_, release.plain_name, client_);
  EXPECT_EQ(plain.Digest(), release.plain_digest);
  EXPECT_EQ(plain.Parent(), std::nullopt);
  EXPECT_TRUE(plain.Labels().empty());
  EXPECT_EQ(ListTree(home_ / "snapshots"), before) << "Open must not change what it opens";
}

TEST_P(FixtureTest, VerifiesWithTheRecordedValue) {
  const auto report = Snapshot::Open(ctx_, GetParam().labelled_name, client_).Verify(ctx_);
  EXPECT_EQ(report.digest, GetParam().labelled_digest);
  EXPECT_EQ(report.path, home_ / "snapshots" / GetParam().labelled_path);
  EXPECT_EQ(report.upper.kind, "verified");
  EXPECT_EQ(report.upper.algorithm, GetParam().algorithm);
  EXPECT_EQ(report.upper.digest,
            GetParam().algorithm == "msb-sparse-sha256-v1" ? kSparseDigest : kMerkleRoot);
  const auto plain = Snapshot::Open(ctx_, GetParam().plain_name, client_).Verify(ctx_);
  EXPECT_EQ(plain.upper.kind, "not_recorded");
}

TEST_P(FixtureTest, OneFlippedByteIsFound) {
  const auto labelled = Snapshot::Open(ctx_, GetParam().labelled_name, client_);
  const fs::path upper = LabelledUpper();
  const std::string content = ReadFile(upper);
  for (const std::size_t at : {std::size_t{0}, content.size() / 2, content.size() - 1}) {
    PatchFile(upper, at, std::string(1, static_cast<char>(content[at] ^ 1)));
    EXPECT_MSB_ERROR(labelled.Verify(ctx_), ErrorKind::kSnapshotIntegrity,
                     upper.filename().native() + " is damaged: expected " + GetParam().algorithm,
                     "but found ");
    PatchFile(upper, at, content.substr(at, 1));
  }
  EXPECT_EQ(labelled.Verify(ctx_).upper.kind, "verified");
}

TEST_P(FixtureTest, ListAndGetReadTheRuntimesIndex) {
  const Release& release = GetParam();
  const auto handles = Snapshot::List(ctx_, client_);
  ASSERT_EQ(handles.size(), 2U);
  EXPECT_EQ(handles[0].Digest(), release.labelled_digest);  // The newer one.
  EXPECT_EQ(handles[0].Name(), release.labelled_name);
  EXPECT_EQ(handles[0].ParentDigest(), release.labelled_parent);
  EXPECT_EQ(handles[0].ImageRef(), "fixture:1");
  EXPECT_EQ(handles[0].Format(), "raw");
  EXPECT_EQ(handles[0].SizeBytes(), 16U << 20);
  // The rows name paths in /srv/msb, where the home was made.
  EXPECT_EQ(handles[0].Path(), home_ / "snapshots" / release.labelled_path);
  EXPECT_EQ(handles[0].Open(ctx_).Digest(), release.labelled_digest);
  EXPECT_EQ(handles[1].Digest(), release.plain_digest);
  EXPECT_EQ(Snapshot::Get(ctx_, release.plain_name, client_).Digest(), release.plain_digest);
  EXPECT_EQ(Snapshot::Get(ctx_, release.plain_digest, client_).Name(), release.plain_name);
  EXPECT_EQ(Snapshot::Get(ctx_, "/srv/msb/snapshots/" + release.plain_path, client_).Digest(),
            release.plain_digest);
  EXPECT_FALSE(fs::exists(home_ / "db/snapshots.db"));
}

TEST_P(FixtureTest, ReindexBringsTheMovedHomeUpToDateForTheRuntimeToo) {
  const Release& release = GetParam();
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client_), 2U);
  const auto handles = Snapshot::List(ctx_, client_);
  ASSERT_EQ(handles.size(), 2U);
  EXPECT_EQ(handles[0].Path(), home_ / "snapshots" / release.labelled_path);
  EXPECT_EQ(handles[0].Open(ctx_).Digest(), release.labelled_digest);
  if (const auto list = RunPeer("snapshot list --format json")) {
    EXPECT_EQ(list->status, 0) << list->output;
    EXPECT_THAT(list->output, HasSubstr(release.labelled_digest));
    EXPECT_THAT(list->output, HasSubstr(release.plain_digest));
    EXPECT_THAT(list->output, HasSubstr(handles[0].Path()));
  }
}

TEST_P(FixtureTest, TheRuntimeStillListsAndVerifiesTheHomeAfterwards) {
  const Release& release = GetParam();
  Snapshot::Reindex(ctx_, "", client_);
  std::ignore = Snapshot::Open(ctx_, release.labelled_name, client_).Verify(ctx_);
  std::ignore = Snapshot::List(ctx_, client_);
  const auto verified = RunPeer("snapshot verify " + release.labelled_name);
  if (!verified) return;
  EXPECT_EQ(verified->status, 0) << verified->output;
  EXPECT_THAT(verified->output, HasSubstr("verified (" + release.algorithm));
  const auto reindexed = RunPeer("snapshot reindex");
  EXPECT_EQ(reindexed->status, 0) << reindexed->output;
  EXPECT_THAT(reindexed->output, HasSubstr("indexed 2"));
}

TEST_P(FixtureTest, TheSandboxOfTheRuntimeIsThere) {
  const auto handles = ListSandboxes(ctx_, client_);
  ASSERT_EQ(handles.size(), 1U);
  EXPECT_EQ(handles[0].Name(), "baseline");
  EXPECT_EQ(handles[0].Status(), SandboxStatus::kStopped);
  EXPECT_EQ(handles[0].Upper().path, home_ / "sandboxes/baseline/upper.ext4");
  EXPECT_EQ(handles[0].Upper().base_digest, kImageDigest);
  EXPECT_THAT(handles[0].ConfigJSON(), HasSubstr("fixture:1"));
}

TEST_P(FixtureTest, TheRuntimeOpensAndVerifiesCreatedSnapshots) {
  const auto made =
      Snapshot::Create(ctx_, "baseline",
                       {.name = "made",
                        .labels = {{"k\"\\", "tab\t\x01 \x7f caf\xc3\xa9 \xe2\x80\xa8"}},
                        .record_integrity = true},
                       client_);
  EXPECT_EQ(fs::exists(made.Path() + "/manifest.json"), GetParam().version == "0.6.6");
  EXPECT_EQ(made.Verify(ctx_).upper.digest,
            GetParam().version == "0.6.6" ? kSparseDigest : kMerkleRoot);
  EXPECT_EQ(Snapshot::Get(ctx_, "made", client_).Digest(), made.Digest());
  ExpectRuntimeVerifies(made);
}

// The label that says how consistent a live snapshot is must not hinder any release.
TEST_P(FixtureTest, TheRuntimeOpensAndVerifiesLiveSnapshots) {
  Client frozen{
      Config{.home = home_, .backend = std::make_shared<FrozenBackend>(client_.backend())}};
  const auto made = Snapshot::Create(
      ctx_, "baseline",
      {.name = "made", .record_integrity = true, .live = LiveSnapshot::kFilesystemConsistent},
      frozen);
  const bool is_manifest = GetParam().version == "0.6.6";
  EXPECT_THAT(ReadFile(fs::path(made.Path()) / (is_manifest ? "manifest.json" : "snapshot.json")),
              HasSubstr("\"msb.consistency\""));
  EXPECT_EQ(made.Consistency(), "filesystem-consistent");
  ExpectRuntimeVerifies(made);
  EXPECT_EQ(Snapshot::Open(ctx_, made.Path(), client_).Consistency(), "filesystem-consistent")
      << "also after the runtime has seen it";
}

TEST_P(FixtureTest, VerifiesSnapshotsThatTheRuntimeCreated) {
  if (GetParam().version == "0.7.2") return;  // Its command line makes groups; the fixture has one.
  const auto created = RunPeer("snapshot create --from baseline --integrity theirs");
  if (!created) return;
  ASSERT_EQ(created->status, 0) << created->output;
  const auto theirs = Snapshot::Open(ctx_, "theirs", client_);
  EXPECT_THAT(created->output, HasSubstr(theirs.Digest()));
  EXPECT_EQ(theirs.Verify(ctx_).upper.kind, "verified");
  EXPECT_EQ(Snapshot::Get(ctx_, "theirs", client_).Digest(), theirs.Digest());
}

TEST_P(FixtureTest, ALocalSandboxBootsFromTheRuntimesSnapshot) {
  Client local({.home = dir_ / "local", .backend = "local"});
  const std::string path = home_ / "snapshots" / GetParam().labelled_path;
  CreateSandbox(ctx_, "worker", {WithSnapshot(path)}, local).Close();
  const auto upper = GetSandbox(ctx_, "worker", local).Upper();
  EXPECT_EQ(ReadFile(upper.path), ReadFile(LabelledUpper()));
  EXPECT_EQ(ExtentsOf(upper.path), ExtentsOf(LabelledUpper()));
  EXPECT_EQ(upper.base_digest, GetParam().labelled_digest);
  EXPECT_EQ(upper.fstype, "ext4");
}

TEST_P(FixtureTest, RemoveTakesTheArtifactAndTheRow) {
  const Release& release = GetParam();
  if (release.version == "0.7.2") {
    // Only the runtime may change its groups.
    EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, release.plain_name, true, client_),
                     ErrorKind::kUnsupportedOperation,
                     "snapshot '" + release.plain_name + "' belongs to a group",
                     "remove it with 'msb snapshot remove'");
    EXPECT_EQ(Snapshot::Open(ctx_, release.plain_name, client_).Digest(), release.plain_digest);
    return;
  }
  Snapshot::Remove(ctx_, release.plain_name, false, client_);
  EXPECT_FALSE(fs::exists(home_ / "snapshots/plain"));
  ASSERT_EQ(Snapshot::List(ctx_, client_).size(), 1U);
  if (const auto list = RunPeer("snapshot list --quiet")) {
    EXPECT_THAT(list->output, ::testing::Not(HasSubstr(release.plain_digest)));
  }
}

std::string TestName(const ::testing::TestParamInfo<Release>& release) {
  std::string name = "Release" + release.param.version;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Releases, FixtureTest, ::testing::Values(k066, k0618, k072), TestName);

// 0.6.7 and 0.6.8 do not read the descriptors that the library writes.
TEST(EarlyDescriptorTest, AHomeOf067GetsSnapshotsThatItsRuntimeReads) {
  const TempDir dir;
  const fs::path home = UnpackFixtureHome("0.6.7", dir.path());
  const Client client(Config{.home = home});
  const auto made = Snapshot::Create(Soon(), "baseline", {.name = "made"}, client);
  EXPECT_TRUE(fs::exists(made.Path() + "/manifest.json"));
  const fs::path peer = PeerPath("0.6.7");
  if (peer.empty()) return;
  const auto run = [&](const std::string& arguments) {
    return RunCommand("MSB_HOME='" + home.native() + "' '" + peer.native() + "' snapshot " +
                      arguments);
  };
  EXPECT_THAT(run("list").output, HasSubstr("made"));
  const CommandResult inspected = run("inspect made");
  EXPECT_EQ(inspected.status, 0) << inspected.output;
  EXPECT_THAT(inspected.output, HasSubstr("baseline"));
}

TEST(GroupTest, ABareGroupIsItsHead) {
  TempDir dir;
  const fs::path home = UnpackFixtureHome("0.7.2", dir.path());
  Client client({.home = home});
  const Context ctx = Context::Background();
  EXPECT_EQ(Snapshot::Open(ctx, "baseline", client).Digest(), k072.labelled_digest);
  EXPECT_EQ(Snapshot::Get(ctx, "baseline", client).Digest(), k072.labelled_digest);
  EXPECT_EQ(Snapshot::Open(ctx, home / "snapshots/baseline", client).Digest(),
            k072.labelled_digest);
  std::vector<std::string> digests;
  for (const auto& artifact : Snapshot::ListDir(ctx, home / "snapshots", client)) {
    digests.push_back(artifact.Digest());
  }
  EXPECT_THAT(digests, UnorderedElementsAre(k072.plain_digest, k072.labelled_digest));
}

// A sandbox that a 0.7 runtime restored writes to an overlay of a link to the snapshot's disk. Its
// files are as that runtime leaves them, and root-disk.json has the paths of another machine.
TEST(RestoredTest, ASnapshotOfARestoredSandboxIsOneRawDisk) {
  TempDir dir;
  const fs::path home = UnpackFixtureHome("0.7.2", dir.path());
  const fs::path sandbox = home / "sandboxes/baseline";
  const std::string overlay = (sandbox / "upper-restore-86.qcow2").native();
  const std::string flat = (dir / "flat.raw").native();
  const auto made =
      RunCommand("qemu-img create -q -f qcow2 -F raw -b upper.ext4 '" + overlay +
                 "' && qemu-io -f qcow2 -c 'write -P 7 3M 100k' -c 'write -z 0 64k' '" + overlay +
                 "' && qemu-img convert -f qcow2 -O raw '" + overlay + "' '" + flat + "'");
  ASSERT_EQ(made.status, 0) << made.output;
  WriteFile(sandbox / "runtime/root-disk.json",
            R"({"schema":"microsandbox.runtime-root-disk/1","layers":[)"
            R"({"path":"/srv/msb/sandboxes/baseline/upper.ext4","format":"raw"},)"
            R"({"path":"/srv/msb/sandboxes/baseline/upper-restore-86.qcow2","format":"qcow2"}]})");
  const Context ctx = Context::Background();
  Client client({.home = home, .backend = "microsandbox"});
  const auto before = ListTree(sandbox);
  const auto snapshot =
      Snapshot::Create(ctx, "baseline", {.name = "made", .record_integrity = true}, client);
  EXPECT_EQ(ListTree(sandbox), before);
  EXPECT_EQ(snapshot.Format(), "raw");
  EXPECT_EQ(snapshot.SizeBytes(), 16U << 20);
  EXPECT_EQ(snapshot.Verify(ctx).upper.kind, "verified");
  EXPECT_TRUE(ReadFile(snapshot.Path() + "/upper.ext4") == ReadFile(flat));
  EXPECT_FALSE(ReadFile(flat) == ReadFile(sandbox / "upper.ext4"));

  // A damaged overlay is refused, and leaves no snapshot.
  PatchFile(overlay, 0, "none");
  EXPECT_MSB_ERROR(Snapshot::Create(ctx, "baseline", {.name = "damaged"}, client),
                   ErrorKind::kSnapshotIntegrity,
                   "upper-restore-86.qcow2' does not begin with the qcow2 signature");
  EXPECT_FALSE(fs::exists(home / "snapshots/damaged"));
  const fs::path peer = PeerPath("0.7.2");
  if (peer.empty()) return;
  const auto verified = RunCommand("MSB_HOME='" + home.native() + "' '" + peer.native() +
                                   "' snapshot verify '" + snapshot.Path() + "'");
  EXPECT_EQ(verified.status, 0) << verified.output;
  EXPECT_THAT(verified.output, HasSubstr("verified ("));
}

// Compares canonical JSON with a runtime's own reading of the same manifest.
TEST(CanonicalTest, IdentitiesAreThoseOfTheRuntime) {
  const fs::path peer = PeerPath("0.6.18");
  if (peer.empty()) return;
  TempDir dir;
  const fs::path home = UnpackFixtureHome("0.6.18", dir.path());
  const fs::path manifest = home / "snapshots/labelled/snapshot.json";
  const std::string good = ReadFile(manifest);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = good;
    return changed.replace(changed.find(from), from.size(), to);
  };
  const std::string created = "2026-11-23T12:59:23.02858503Z";
  const std::string none = "\"extensions\":{}";
  for (const std::string& variant :
       {with(created, "2026-11-23T14:00:00.500+02:00"), with(created, "2026-12-31 23:59:60z"),
        with(created, "2026-01-01T00:00:00.123456789999Z"),
        with(none,
             "\"extensions\":{\"b\":[1E5,-0,-0.0,1.0,0.1e1,1e15,1e16],\"a\":{\"z\":1,\"y\":{}}}"),
        with(none,
             "\"extensions\":{\"n\":[18446744073709551615,18446744073709551616,1e-5,1e-6,"
             "5e-324,1.7976931348623157e308,123456789012345680.0,-9223372036854775808]}"),
        with("\"stage\"", "\"\\u0001\\u007f\\u2028\\/\\b\\\"\""), with("{", "{ \n\t")}) {
    WriteFile(manifest, variant);
    const auto inspected = RunCommand("MSB_HOME='" + home.native() + "' '" + peer.native() +
                                      "' snapshot inspect labelled");
    ASSERT_EQ(inspected.status, 0) << inspected.output << variant;
    Client client({.home = home});
    const auto ours = Snapshot::Open(Context::Background(), "labelled", client);
    EXPECT_THAT(inspected.output, HasSubstr(ours.Digest())) << variant;
  }
}

}  // namespace
}  // namespace msb::test
