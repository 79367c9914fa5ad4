// SPDX-License-Identifier: Apache-2.0
//
// Tests the kind of error with which the API refuses invalid calls, and that they leave nothing.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>
#include <tuple>

#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

class RefusalTest : public ::testing::Test {
 protected:
  RefusalTest() {
    // Small, because the trees are compared often. Two regions, so that both workers have one.
    MakeSparseFile(dir_ / "base.img", 3 << 20, {{0, Noise(4096, 1)}, {5 << 19, Noise(100'000, 2)}});
    MakeStoppedSandbox(client_, "baseline", dir_ / "base.img");
    Snapshot::Create(ctx_, "baseline", {.name = "s", .record_integrity = true}, client_);
  }

  void ExpectRefused(const SnapshotCreateOptions& options, ErrorKind kind, const std::string& named,
                     const std::string& sandbox = "baseline") {
    const auto before = ListTree(dir_.path());
    EXPECT_MSB_ERROR(Snapshot::Create(ctx_, sandbox, options, client_), kind, named);
    EXPECT_EQ(ListTree(dir_.path()), before);
  }

  void ExpectOpenRefused(const std::string& path_or_name, ErrorKind kind,
                         const std::string& named) {
    const auto before = ListTree(dir_ / "home/snapshots");
    EXPECT_MSB_ERROR(Snapshot::Open(ctx_, path_or_name, client_), kind, named);
    EXPECT_EQ(ListTree(dir_ / "home/snapshots"), before);
  }

  void ExpectBootRefused(const SandboxOption& source, ErrorKind kind, const std::string& named,
                         const std::string& next_step) {
    const auto before = ListTree(dir_ / "home/sandboxes");
    EXPECT_MSB_ERROR(std::ignore = CreateSandbox(ctx_, "a", {source}, client_), kind, named,
                     next_step);
    EXPECT_EQ(ListTree(dir_ / "home/sandboxes"), before);
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  std::vector<std::string> log_;
  Client client_ = LocalClient(dir_ / "home", &log_);
  const fs::path artifact_ = dir_ / "home/snapshots/s";
};

TEST_F(RefusalTest, ImagesBehindALinkThatLeadsNowhere) {
  fs::create_symlink("/mnt/absent.img", dir_ / "link.img");
  ExpectBootRefused(WithImage(dir_ / "link.img"), ErrorKind::kImageNotFound,
                    "/link.img is a symbolic link to /mnt/absent.img, which is absent",
                    "mount or create that, or correct the link");
}

TEST_F(RefusalTest, SnapshotsThatAreGivenAsImages) {
  for (const std::string& snapshot : {std::string("s"), artifact_.native()}) {
    ExpectBootRefused(WithImage(snapshot), ErrorKind::kImageNotFound,
                      "'" + snapshot + "' is a snapshot",
                      "create a sandbox from it with WithSnapshot");
  }
}

TEST_F(RefusalTest, FilesThatAreGivenAsSnapshots) {
  const std::string image = dir_ / "base.img";
  ExpectBootRefused(WithSnapshot(image), ErrorKind::kSnapshotNotFound,
                    "no snapshot at " + image + "; '" + image + "' is a file",
                    "create a sandbox from a disk image with WithImage, or import an exported "
                    "snapshot with Snapshot::Import");
}

TEST_F(RefusalTest, RawImagesOfPartialSectors) {
  WriteFile(dir_ / "page.html", "<html>404</html>");
  ExpectBootRefused(WithImage(dir_ / "page.html"), ErrorKind::kInvalidArgument,
                    "/page.html is not a disk image, or is truncated: its size, 16 bytes, is not",
                    "give a complete raw or qcow2 disk image");
}

TEST_F(RefusalTest, InvalidNames) {
  const std::vector<std::pair<std::string, std::string>> names = {
      {"a/b", "'a/b' is invalid: it must not contain '/'"},
      {"../a", "'../a' is invalid: it must not begin with '.'"},
      {"/a", "'/a' is invalid: it must not contain '/'"},
      {".hidden", "'.hidden' is invalid: it must not begin with '.'"},
      {"~a", "'~a' is invalid: it must not begin with '~'"},
      {"a\\b", "'a\\b' is invalid: it must not contain '\\'"},
      {"a:b", "'a:b' is invalid: it must not contain ':'"},
      {std::string(256, 'a'), "it must not be longer than 255 bytes"},
      {"caf\xe9", "'caf\\xe9' is invalid: it must be UTF-8"},
      {"a\nb", "'a\\x0ab' is invalid: it must not contain control characters"},
      {"..", "'..' is invalid: it must not begin with '.'"},
      {std::string("a\0b", 3), "'a\\x00b' is invalid: it must not contain control characters"}};
  for (const auto& [name, message] : names) {
    ExpectRefused({.name = name}, ErrorKind::kInvalidConfig, message);
    // The name is checked before anything else.
    ExpectRefused({.name = name}, ErrorKind::kInvalidConfig, message, "no such sandbox");
  }
  const auto handle = GetSandbox(ctx_, "baseline", client_);
  EXPECT_MSB_ERROR(handle.Snapshot(ctx_, ""), ErrorKind::kInvalidConfig, "snapshot name ''",
                   "it must not be empty");
}

TEST_F(RefusalTest, NamesThatAreUnusualAreFine) {
  for (const std::string& name : {std::string(255, 'a'), std::string("caf\xc3\xa9"),
                                  std::string("a b"), std::string("-x"), std::string("a.b~")}) {
    const auto created = Snapshot::Create(ctx_, "baseline", {.name = name}, client_);
    EXPECT_EQ(Snapshot::Open(ctx_, name, client_).Digest(), created.Digest());
  }
}

TEST_F(RefusalTest, NeitherOrBothOfNameAndPath) {
  const std::string either = "exactly one of SnapshotCreateOptions::name and path";
  ExpectRefused({}, ErrorKind::kInvalidArgument, either);
  ExpectRefused({.name = "x", .path = dir_ / "x"}, ErrorKind::kInvalidArgument, either);
  ExpectRefused({.path = "/"}, ErrorKind::kInvalidArgument,
                "path '/' is invalid: it must end in the name of a directory");
}

// Open would not find a snapshot with such a name.
TEST_F(RefusalTest, PathsInTheSnapshotsDirectoryThatAreNoNames) {
  for (const std::string name : {".hidden", "a:b", "a\\b", "~x"}) {
    ExpectRefused({.path = dir_ / "home/snapshots" / name}, ErrorKind::kInvalidConfig, name);
  }
}

TEST_F(RefusalTest, NamesOfDirectoriesThatAreSwept) {
  const fs::path stage = dir_ / ".msb-stage-x";
  ExpectRefused({.path = stage}, ErrorKind::kInvalidArgument, ".msb-stage-x");
  ExpectRefused({.path = stage / "x"}, ErrorKind::kInvalidArgument, "choose another name");
  EXPECT_MSB_ERROR(Snapshot::Flatten(ctx_, "s", stage / "x", {}, client_),
                   ErrorKind::kInvalidArgument, ".msb-stage-x", "choose another name");
  Snapshot::Export(ctx_, "s", dir_ / "s.tar", {}, client_);
  EXPECT_MSB_ERROR(Snapshot::Import(ctx_, dir_ / "s.tar", dir_ / ".msb-pull-x", client_),
                   ErrorKind::kInvalidArgument, ".msb-pull-x", "choose another name");
}

TEST_F(RefusalTest, AHomeMayBeBeneathADirectoryThatLooksLikeAStage) {
  Client client = LocalClient(dir_ / ".msb-stage-job/home");
  Snapshot::Export(ctx_, "s", dir_ / "s.tar", {}, client_);
  const auto imported = Snapshot::Import(ctx_, dir_ / "s.tar", "", client);
  EXPECT_EQ(imported.Digest(), Snapshot::Open(ctx_, "s", client_).Digest());
}

// System calls would use what precedes the NUL, and the record of a sandbox cannot hold it.
TEST_F(RefusalTest, PathsWithANul) {
  const std::string path = (dir_ / "x").native() + std::string("\0y", 2);
  const auto before = ListTree(dir_.path());
  const auto expect_refused = [&](const std::function<void()>& call) {
    EXPECT_MSB_ERROR(call(), ErrorKind::kInvalidArgument, "must not contain a NUL byte",
                     "give another path");
  };
  expect_refused([&] { Snapshot::Create(ctx_, "baseline", {.path = path}, client_); });
  expect_refused([&] { Snapshot::Squash(ctx_, "s", {.path = path}, client_); });
  expect_refused([&] { Snapshot::Restore(ctx_, "baseline", path, client_); });
  expect_refused([&] { std::ignore = Snapshot::Open(ctx_, path, client_); });
  expect_refused([&] { std::ignore = Snapshot::ListDir(ctx_, path, client_); });
  expect_refused([&] { Snapshot::Reindex(ctx_, path, client_); });
  expect_refused([&] { Snapshot::Export(ctx_, "s", path, {}, client_); });
  expect_refused([&] { Snapshot::Flatten(ctx_, "s", path, {}, client_); });
  expect_refused([&] { Snapshot::Import(ctx_, path, "", client_); });
  expect_refused([&] { Snapshot::Import(ctx_, dir_ / "x", path, client_); });
  expect_refused([&] { Client({.home = path, .backend = "local"}); });
  EXPECT_EQ(ListTree(dir_.path()), before);
  Snapshot::Restore(ctx_, "baseline", "s", client_);
}

TEST_F(RefusalTest, OptionsThatAreEmptyFunctions) {
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "x", {WithSnapshot("s"), nullptr}, client_).Close(),
                   ErrorKind::kInvalidArgument, "an option is an empty function", "leave it out");
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "baseline", client_).Stop(ctx_, {StopOption()}),
                   ErrorKind::kInvalidArgument, "an option is an empty function", "leave it out");
}

TEST_F(RefusalTest, LabelsThatNoManifestCanHold) {
  ExpectRefused({.name = "x", .labels = {{"k", "\xff"}}}, ErrorKind::kInvalidArgument,
                "label 'k' is not UTF-8");
  ExpectRefused({.name = "x", .labels = {{"k", std::string(10 << 20, 'v')}}},
                ErrorKind::kInvalidArgument,
                "the labels have 10485761 bytes, but at most 1048576 are supported");
}

TEST_F(RefusalTest, AbsentOrRunningSandboxes) {
  for (const std::string name : {"nobody", "../baseline", "", ".", "baseline/x"}) {
    ExpectRefused({.name = "x"}, ErrorKind::kSandboxNotFound, "no sandbox '" + name + "'", name);
  }
  const Sandbox running = StartSandbox(ctx_, "baseline", client_);
  ExpectRefused({.name = "x"}, ErrorKind::kSnapshotSandboxRunning, "sandbox 'baseline' is running");
}

TEST_F(RefusalTest, DestinationsThatExist) {
  ExpectRefused({.name = "s"}, ErrorKind::kSnapshotAlreadyExists,
                "/snapshots/s exists; remove it, or set force to replace it");
  const std::string not_replaced = "not a snapshot, so it is not replaced; choose another name";
  WriteFile(dir_ / "file", "mine");
  ExpectRefused({.path = dir_ / "file"}, ErrorKind::kSnapshotAlreadyExists,
                "/file exists and is a regular file, " + not_replaced);
  // Force replaces snapshots only.
  ExpectRefused({.path = dir_ / "file", .force = true}, ErrorKind::kSnapshotAlreadyExists,
                "/file exists and is a regular file, " + not_replaced);
  WriteFile(dir_ / "precious/file", "mine");
  ExpectRefused({.path = dir_ / "precious", .force = true}, ErrorKind::kSnapshotAlreadyExists,
                "/precious exists and is a directory, " + not_replaced);
}

TEST_F(RefusalTest, AParentThatIsAFile) {
  ExpectRefused({.path = dir_ / "base.img/place"}, ErrorKind::kIO, "/base.img: ");
}

TEST_F(RefusalTest, AnUpperThatChangesWhileItIsCopied) {
  const std::string upper = GetSandbox(ctx_, "baseline", client_).Upper().path;
  const auto stamp = fs::last_write_time(upper);
  for (const auto& change : std::vector<std::function<void()>>{
           [&] { fs::resize_file(upper, fs::file_size(upper) + 4096); },
           [&] { PatchFile(upper, 1 << 20, "changed"); },
           [&] { fs::resize_file(upper, fs::file_size(upper) / 4); },
           [&] {
             fs::copy(upper, upper + ".new");
             fs::rename(upper + ".new", upper);
             fs::last_write_time(upper, stamp);
           }}) {
    // The progress function runs in the middle of the call.
    bool changed = false;
    const Context ctx = ctx_.WithProgress([&](const Progress&) {
      if (!std::exchange(changed, true)) change();
    });
    EXPECT_MSB_ERROR(Snapshot::Create(ctx, "baseline", {.name = "x"}, client_),
                     ErrorKind::kSnapshotSandboxRunning,
                     "/baseline/upper.ext4 changed while it was copied",
                     "stop the program that writes to it");
    EXPECT_EQ(ListTree(dir_ / "home/snapshots").size(), 3U);  // s and its two files.
    EXPECT_MSB_ERROR(Snapshot::Get(ctx_, "x", client_), ErrorKind::kSnapshotNotFound,
                     "no snapshot 'x' in the index", "call Reindex");
  }
}

TEST_F(RefusalTest, ASandboxThatIsStartedWhileItIsCopied) {
  std::optional<Sandbox> running;
  const Context ctx = ctx_.WithProgress([&](const Progress&) {
    if (!running) running = StartSandbox(ctx_, "baseline", client_);
  });
  EXPECT_MSB_ERROR(Snapshot::Create(ctx, "baseline", {.name = "x"}, client_),
                   ErrorKind::kSnapshotSandboxRunning, "sandbox 'baseline' is running",
                   "stop it first");
  EXPECT_EQ(ListTree(dir_ / "home/snapshots").size(), 3U);
}

TEST_F(RefusalTest, AnUpperThatIsNoRegularFile) {
  const fs::path upper = GetSandbox(ctx_, "baseline", client_).Upper().path;
  fs::rename(upper, dir_ / "kept");
  fs::create_symlink(dir_ / "kept", upper);
  const std::string regular = "/baseline/upper.ext4 must be a regular file, but is a ";
  ExpectRefused({.name = "x"}, ErrorKind::kIO, regular + "symbolic link");
  fs::remove(upper);
  ASSERT_EQ(mkfifo(upper.c_str(), 0600), 0);
  ExpectRefused({.name = "x"}, ErrorKind::kIO, regular + "special file");
}

TEST_F(RefusalTest, ACancelledCreateLeavesNothing) {
  const auto [ctx, cancel] = ctx_.WithCancel();
  const Context cancelling = ctx.WithProgress([cancel = cancel](const Progress&) { cancel(); });
  const auto before = ListTree(dir_.path());
  EXPECT_MSB_ERROR(Snapshot::Create(cancelling, "baseline", {.name = "x"}, client_),
                   ErrorKind::kCancelled, "cancelled");
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_.WithTimeout(std::chrono::seconds(0)), "baseline",
                                    {.name = "s", .force = true}, client_),
                   ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_EQ(ListTree(dir_.path()), before);
}

TEST_F(RefusalTest, ArtifactsThatAreNotThere) {
  const std::vector<std::pair<std::string, std::string>> absent = {
      {"nobody", "no snapshot at " + (dir_ / "home/snapshots/nobody").native()},
      {"/nowhere/s", "no snapshot at /nowhere/s"},
      {"./s", "no snapshot at " + (fs::current_path() / "s").native()},
      {"~/no-such-snapshot", "/no-such-snapshot"},
      {"s:member", "/snapshots/s has no snapshot 'member'"}};
  for (const auto& [key, message] : absent) {
    ExpectOpenRefused(key, ErrorKind::kSnapshotNotFound, message);
    EXPECT_MSB_ERROR(Snapshot::Get(ctx_, key, client_), ErrorKind::kSnapshotNotFound,
                     "no snapshot '" + key + "' in the index", "call Reindex");
    EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, key, true, client_), ErrorKind::kSnapshotNotFound,
                     "no snapshot '" + key + "' in ");
  }
  const std::string digest = "sha256:" + std::string(64, 'a');
  EXPECT_MSB_ERROR(Snapshot::Get(ctx_, digest, client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot '" + digest + "' in the index", "call Reindex");
  EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, digest, false, client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot '" + digest + "' in ");
  EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, "", true, client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot '' in ");
  EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, dir_.path(), true, client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot '" + dir_.path().native() + "' in ");
  fs::create_directory(dir_ / "home/snapshots/empty");
  ExpectOpenRefused("empty", ErrorKind::kSnapshotNotFound, "/snapshots/empty");
}

TEST_F(RefusalTest, UppersThatDifferFromTheManifest) {
  const fs::path upper = artifact_ / "upper.ext4";
  const fs::path kept = dir_ / "kept";
  fs::rename(upper, kept);
  ExpectOpenRefused("s", ErrorKind::kSnapshotIntegrity, "but is absent");
  fs::create_symlink(kept, upper);
  ExpectOpenRefused("s", ErrorKind::kSnapshotIntegrity, "but is a symbolic link");
  fs::remove(upper);
  fs::create_directory(upper);
  ExpectOpenRefused("s", ErrorKind::kSnapshotIntegrity, "but is a directory");
  fs::remove(upper);
  ASSERT_EQ(mkfifo(upper.c_str(), 0600), 0);
  EXPECT_MSB_ERROR(Snapshot::Open(ctx_, "s", client_), ErrorKind::kSnapshotIntegrity,
                   "/s/upper.ext4 must be a regular file, but is a special file", "restore it");
  fs::remove(upper);
  fs::copy(kept, upper);
  fs::resize_file(upper, fs::file_size(kept) - 1);
  ExpectOpenRefused("s", ErrorKind::kSnapshotIntegrity, "but has 3145727");
  fs::resize_file(upper, fs::file_size(kept) + 1);
  ExpectOpenRefused("s", ErrorKind::kSnapshotIntegrity, "but has 3145729");
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "w", {WithSnapshot("s")}, client_),
                   ErrorKind::kSnapshotIntegrity, "/s/upper.ext4 must have 3145728 bytes",
                   "but has 3145729");
  EXPECT_FALSE(fs::exists(dir_ / "home/sandboxes/w"));
}

TEST_F(RefusalTest, ManifestsThatAreMalformed) {
  const fs::path manifest = artifact_ / "snapshot.json";
  const std::string good = ReadFile(manifest);
  std::string long_label = good;
  long_label.replace(good.find("\"labels\":{"), 10,
                     "\"labels\":{\"k\":\"" + std::string(10 << 20, 'v') + "\"");
  std::string no_parent = good;
  no_parent.erase(good.find("\"parent\":null,"), 14);
  const std::string deep = std::string(1000, '[') + std::string(1000, ']');
  std::string over_deep = good;
  over_deep.replace(good.find("\"extensions\":{}"), 15, "\"extensions\":{\"a\":" + deep + "}");
  const std::vector<std::string> bad = {"",
                                        "{}",
                                        "null",
                                        good.substr(0, good.size() - 1),
                                        good + "x",
                                        "{\"schema\":1," + good.substr(1),
                                        std::string(good).replace(good.find("raw"), 3, "r\xffw"),
                                        no_parent,
                                        long_label,
                                        deep,
                                        over_deep};
  for (const std::string& content : bad) {
    WriteFile(manifest, content);
    ExpectOpenRefused("s", ErrorKind::kSnapshotIntegrity, "/s/snapshot.json");
    ExpectOpenRefused(artifact_, ErrorKind::kSnapshotIntegrity, "/s/snapshot.json");
  }
  EXPECT_TRUE(Snapshot::ListDir(ctx_, dir_ / "home/snapshots", client_).empty());
  EXPECT_FALSE(log_.empty());
  // A snapshot that cannot be opened can still be removed.
  Snapshot::Remove(ctx_, "s", false, client_);
  EXPECT_FALSE(fs::exists(artifact_));
}

TEST_F(RefusalTest, ANameThatIsALinkElsewhere) {
  fs::rename(artifact_, dir_ / "elsewhere");
  fs::create_directory_symlink(dir_ / "elsewhere", artifact_);
  ExpectOpenRefused(
      "s", ErrorKind::kSnapshotIntegrity,
      "/snapshots/s must be a directory, but is a symbolic link; give the path of the "
      "snapshot that it points to");
}

TEST_F(RefusalTest, AnAbsentBackendIsReported) {
  EXPECT_MSB_ERROR(Client({.home = dir_ / "home", .backend = "nonesuch"}),
                   ErrorKind::kInvalidConfig, "unknown backend 'nonesuch'",
                   "local, microsandbox or qemu");
  EXPECT_MSB_ERROR(Client({.home = dir_ / "home", .backend = std::shared_ptr<vmm::Backend>()}),
                   ErrorKind::kInvalidConfig, "Config::backend must not be a null pointer");
}

TEST_F(RefusalTest, SnapshotsWithUnknownRequirementsCanBeOpenedButNotBooted) {
  std::string manifest = ReadFile(artifact_ / "snapshot.json");
  manifest.replace(manifest.find("\"extensions\":{}"), 15, "\"extensions\":{\"x.y\":1}");
  manifest.replace(manifest.find("\"requires\":[]"), 13, "\"requires\":[\"x.y\"]");
  WriteFile(artifact_ / "snapshot.json", manifest);
  EXPECT_EQ(Snapshot::Open(ctx_, "s", client_).Verify(ctx_).upper.kind, "verified");
  const auto before = ListTree(dir_ / "home/sandboxes");
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "w", {WithSnapshot("s")}, client_),
                   ErrorKind::kUnsupportedOperation, "/snapshots/s cannot be used",
                   "requires the extension 'x.y'");
  EXPECT_EQ(ListTree(dir_ / "home/sandboxes"), before);
}

}  // namespace
}  // namespace msb::test
