// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/microsandbox_backend.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "src/base/descriptor.h"
#include "src/base/sqlite.h"
#include "src/base/time.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

namespace fs = std::filesystem;
using base::Database;
using base::Statement;
using nlohmann::json;

constexpr std::string_view kImageDigest =
    "sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac";

// Uses the home that each of the releases made, with one sandbox: baseline, stopped.
class MicrosandboxBackendTest : public testing::TestWithParam<std::string> {
 protected:
  SandboxRecord Inspect(const std::string& name = "baseline") {
    return backend_.Inspect(ctx_, name);
  }

  // Sets one column of baseline.
  void Set(const std::string& column, const std::string& value) {
    const Database db(database_, Database::Mode::kReadWrite);
    Statement statement(db, "UPDATE sandbox SET " + column + " = ?1 WHERE id = 1");
    statement.Bind(1, std::string_view(value)).Run();
  }

  void Execute(const std::string& sql) {
    Database(database_, Database::Mode::kReadWrite).Execute(sql);
  }

  json Config() { return json::parse(Inspect().config_json); }

  // Records that baseline has run as this process since started_at.
  void SetRun(std::int64_t pid, const std::string& started_at) {
    const Database db(database_, Database::Mode::kReadWrite);
    Statement run(db,
                  "INSERT INTO run (sandbox_id, pid, status, started_at) "
                  "VALUES (1, ?1, 'Running', ?2)");
    run.Bind(1, pid).Bind(2, std::string_view(started_at)).Run();
  }

  const Context ctx_ = Context::Background();
  test::TempDir dir_;
  const fs::path home_ = test::UnpackFixtureHome(GetParam(), dir_.path());
  const fs::path database_ = home_ / "db" / "msb.db";
  std::vector<std::string> log_;
  MicrosandboxBackend backend_{base::Home({.home = home_}), {}, [this](std::string_view message) {
                                 log_.emplace_back(message);
                               }};
};

INSTANTIATE_TEST_SUITE_P(Releases, MicrosandboxBackendTest,
                         testing::ValuesIn(test::FixtureReleases()), [](const auto& release) {
                           std::string name = "Release_" + release.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

std::string Now() { return base::FormatIndexTime(base::UtcTime::Now()); }

TEST_P(MicrosandboxBackendTest, ReadsTheSandboxThatTheReleaseMade) {
  const SandboxRecord record = Inspect();
  EXPECT_EQ(record.name, "baseline");
  EXPECT_EQ(record.status, SandboxStatus::kStopped);
  ASSERT_TRUE(record.image);
  EXPECT_EQ(record.image->ref, "fixture:1");
  EXPECT_EQ(record.image->manifest_digest, kImageDigest);
  ASSERT_TRUE(record.upper);
  EXPECT_EQ(record.upper->path, home_ / "sandboxes" / "baseline" / "upper.ext4");
  EXPECT_TRUE(fs::exists(record.upper->path));
  EXPECT_EQ(record.upper->format, DiskFormat::kRaw);
  EXPECT_EQ(record.upper->fstype, "ext4");
  EXPECT_EQ(record.snapshot_digest, std::nullopt);
  EXPECT_TRUE(record.labels.empty());
  EXPECT_LT(record.created_at, record.updated_at);
  EXPECT_GT(record.created_at, std::chrono::sys_days(std::chrono::year(2026) / 11 / 23));
  EXPECT_EQ(json::parse(record.config_json).at("name"), "baseline");
  EXPECT_EQ(backend_.Name(), "microsandbox");
}

TEST_P(MicrosandboxBackendTest, ListsAllSandboxes) {
  ASSERT_EQ(backend_.List(ctx_).size(), 1U);
  EXPECT_EQ(backend_.List(ctx_)[0].name, "baseline");
  Execute(
      "INSERT INTO sandbox (name, config, status) SELECT 'other', config, 'Created' FROM sandbox");
  ASSERT_EQ(backend_.List(ctx_).size(), 2U);
  EXPECT_EQ(Inspect("other").upper->path, home_ / "sandboxes" / "other" / "upper.ext4");
  Execute("DELETE FROM sandbox");
  EXPECT_TRUE(backend_.List(ctx_).empty());
}

TEST_P(MicrosandboxBackendTest, OneSandboxThatMakesNoSenseDoesNotHideTheOthers) {
  Execute(
      "INSERT INTO sandbox (name, config, status) SELECT 'odd', config, 'Hibernating' FROM "
      "sandbox");
  Execute("INSERT INTO sandbox (name, config, status) VALUES ('bad', '{', 'Stopped')");
  ASSERT_EQ(backend_.List(ctx_).size(), 1U);
  EXPECT_EQ(backend_.List(ctx_)[0].name, "baseline");
  EXPECT_EQ(log_.size(), 4U);
}

TEST_P(MicrosandboxBackendTest, AConfigurationOfManyMegabytesIsRefused) {
  Execute("UPDATE sandbox SET config = '{\"x\":\"' || hex(zeroblob(2000000)) || '\"}'");
  EXPECT_MSB_ERROR(Inspect(), ErrorKind::kInvalidConfig, "configuration of sandbox 'baseline'",
                   "more than 1048576 bytes");
}

TEST_P(MicrosandboxBackendTest, RefusesAViewInsteadOfTheTable) {
  Execute("ALTER TABLE sandbox RENAME TO real_sandbox");
  Execute("CREATE VIEW sandbox AS SELECT * FROM real_sandbox");
  EXPECT_MSB_ERROR(Inspect(), ErrorKind::kUnsupportedOperation,
                   "/msb.db lacks the table 'sandbox'");
}

TEST_P(MicrosandboxBackendTest, DoesNotFindASandboxThatIsNotThere) {
  for (const char* name : {"gone", "", "BASELINE", "baseline'--", "%"}) {
    EXPECT_MSB_ERROR(Inspect(name), ErrorKind::kSandboxNotFound,
                     "no sandbox '" + std::string(name) + "' in ", "msb.db");
  }
}

TEST_P(MicrosandboxBackendTest, FindsNoSandboxWhereThereIsNoDatabase) {
  MicrosandboxBackend backend(base::Home({.home = dir_ / "gone"}), {}, nullptr);
  EXPECT_MSB_ERROR(backend.Inspect(ctx_, "baseline"), ErrorKind::kSandboxNotFound,
                   "no sandbox 'baseline' in ", "/gone/db/msb.db");
  EXPECT_TRUE(backend.List(ctx_).empty());
  EXPECT_FALSE(fs::exists(dir_ / "gone"));
}

TEST_P(MicrosandboxBackendTest, ReportsEachStatus) {
  SetRun(getpid(), Now());
  const std::map<std::string, SandboxStatus> statuses = {
      {"Created", SandboxStatus::kCreated}, {"Starting", SandboxStatus::kStarting},
      {"Running", SandboxStatus::kRunning}, {"Draining", SandboxStatus::kDraining},
      {"Paused", SandboxStatus::kPaused},   {"Stopped", SandboxStatus::kStopped},
      {"Crashed", SandboxStatus::kCrashed}};
  for (const auto& [text, status] : statuses) {
    Set("status", text);
    EXPECT_EQ(Inspect().status, status) << text;
    EXPECT_EQ(backend_.List(ctx_).at(0).status, status) << text;
  }
}

TEST_P(MicrosandboxBackendTest, RefusesAStatusThatItDoesNotKnow) {
  for (const char* status : {"Hibernating", "", "running"}) {
    Set("status", status);
    EXPECT_MSB_ERROR(Inspect(), ErrorKind::kUnsupportedOperation,
                     "sandbox 'baseline' has the unknown status '" + std::string(status) + "'");
  }
}

TEST_P(MicrosandboxBackendTest, CountsASandboxWhoseProcessIsGoneAsCrashed) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  SetRun(child, Now());
  for (const bool waited_for : {false, true}) {
    if (waited_for) {
      ASSERT_EQ(waitpid(child, nullptr, 0), child);
    }
    for (const char* status : {"Starting", "Running", "Draining", "Paused"}) {
      Set("status", status);
      EXPECT_EQ(Inspect().status, SandboxStatus::kCrashed) << status;
      EXPECT_EQ(backend_.List(ctx_).at(0).status, SandboxStatus::kCrashed) << status;
    }
    for (const char* status : {"Created", "Stopped"}) {
      Set("status", status);
      EXPECT_NE(Inspect().status, SandboxStatus::kCrashed) << status;
    }
  }
}

// The runtime of another container records a pid that means nothing here.
TEST_P(MicrosandboxBackendTest, CountsASandboxWhoseDiskIsOpenForWritingAsRunning) {
  Set("status", "Running");
  SetRun(0, Now());
  const fs::path disk = home_ / "sandboxes" / "baseline" / "upper.ext4";
  ASSERT_TRUE(fs::exists(disk));
  {
    const base::UniqueFd vm = base::OpenAt(AT_FDCWD, disk.c_str(), O_RDWR);
    EXPECT_EQ(Inspect().status, SandboxStatus::kRunning);
    EXPECT_EQ(backend_.List(ctx_).at(0).status, SandboxStatus::kRunning);
    EXPECT_MSB_ERROR(backend_.Remove(ctx_, "baseline"), ErrorKind::kSandboxStillRunning,
                     "sandbox 'baseline' is running", "stop it first");
  }
  EXPECT_EQ(Inspect().status, SandboxStatus::kCrashed);
}

TEST_P(MicrosandboxBackendTest, DistinguishesTheProcessFromALaterOneOfTheSamePid) {
  Set("status", "Running");
  SetRun(getpid(), Now());
  EXPECT_EQ(Inspect().status, SandboxStatus::kRunning);
  SetRun(getpid(), "2020-01-01 00:00:00.000000000");
  EXPECT_EQ(Inspect().status, SandboxStatus::kCrashed);
}

TEST_P(MicrosandboxBackendTest, LooksAtTheLastRunOnly) {
  Set("status", "Running");
  SetRun(getpid(), "2020-01-01 00:00:00.000000000");
  SetRun(getpid(), Now());
  EXPECT_EQ(Inspect().status, SandboxStatus::kRunning);
}

TEST_P(MicrosandboxBackendTest, BelievesTheStatusWhereNoProcessIsRecorded) {
  Set("status", "Running");
  SetRun(getpid(), Now());
  Execute("UPDATE run SET pid = NULL");
  EXPECT_EQ(Inspect().status, SandboxStatus::kRunning);
  Execute("DELETE FROM run");
  EXPECT_EQ(Inspect().status, SandboxStatus::kRunning);
}

TEST_P(MicrosandboxBackendTest, TakesAPidThatNoProcessHasForAGoneOne) {
  Set("status", "Running");
  for (const std::int64_t pid :
       {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1} << 32 | getpid(), INT64_MIN}) {
    SetRun(pid, Now());
    EXPECT_EQ(Inspect().status, SandboxStatus::kCrashed) << pid;
  }
  SetRun(getpid(), Now());
  Execute("UPDATE run SET started_at = NULL");
  EXPECT_EQ(Inspect().status, SandboxStatus::kRunning);
}

TEST_P(MicrosandboxBackendTest, ReadsTheImageOfAnOlderRow) {
  json config = Config();
  config["image"] = {{"Oci", "alpine:3.20"}};
  Set("config", config.dump());
  const SandboxRecord record = Inspect();
  ASSERT_TRUE(record.image);
  EXPECT_EQ(record.image->ref, "alpine:3.20");
  EXPECT_EQ(record.image->manifest_digest, kImageDigest);
  EXPECT_TRUE(record.upper);
}

TEST_P(MicrosandboxBackendTest, FindsNoUpperOfItsOwnUnderAnotherRootDisk) {
  for (const char* kind : {"tmpfs", "disk-image", "flat", "later"}) {
    json config = Config();
    config["image"]["Oci"]["root_disk"] = {{"kind", kind}};
    Set("config", config.dump());
    EXPECT_FALSE(Inspect().upper) << kind;
  }
  json config = Config();
  config["image"]["Oci"]["root_disk"] = {{"kind", "managed"}};
  Set("config", config.dump());
  EXPECT_TRUE(Inspect().upper);
  config["image"]["Oci"].erase("root_disk");
  Set("config", config.dump());
  EXPECT_TRUE(Inspect().upper);
}

TEST_P(MicrosandboxBackendTest, FindsNeitherImageNorUpperOfARootThatIsNoOciImage) {
  json config = Config();
  for (const json& image : {json{{"DiskImage", {{"path", "/a"}}}}, json("x"), json(), json(1)}) {
    config["image"] = image;
    Set("config", config.dump());
    EXPECT_FALSE(Inspect().image) << image;
    EXPECT_FALSE(Inspect().upper) << image;
  }
}

TEST_P(MicrosandboxBackendTest, FindsNoImageThatIsNotPinned) {
  json config = Config();
  config["manifest_digest"] = nullptr;
  Set("config", config.dump());
  EXPECT_FALSE(Inspect().image);
  config.erase("manifest_digest");
  Set("config", config.dump());
  EXPECT_FALSE(Inspect().image);
  EXPECT_TRUE(Inspect().upper);
}

TEST_P(MicrosandboxBackendTest, ReadsLabels) {
  json config = Config();
  config["labels"] = {{"stage", "one"}, {"odd", 1}};
  Set("config", config.dump());
  EXPECT_EQ(Inspect().labels, (std::map<std::string, std::string>{{"stage", "one"}}));
}

TEST_P(MicrosandboxBackendTest, RefusesAConfigurationThatIsNoJson) {
  for (const char* config : {"", "{", "\xff", R"({"image":1,"image":2})"}) {
    Set("config", config);
    EXPECT_MSB_ERROR(Inspect(), ErrorKind::kInvalidConfig,
                     "configuration of sandbox 'baseline' is malformed");
  }
  for (const char* config : {"[]", "null", "{}"}) {
    Set("config", config);
    EXPECT_FALSE(Inspect().upper) << config;
  }
}

TEST_P(MicrosandboxBackendTest, MakesNoPathOfANameThatCouldLeadElsewhere) {
  for (const char* name : {"a/b", "../../etc", "..", ".", "/etc", ""}) {
    Set("name", name);
    const SandboxRecord record = Inspect(name);
    EXPECT_EQ(record.name, name);
    EXPECT_FALSE(record.upper) << name;
  }
}

TEST_P(MicrosandboxBackendTest, IsNotHarmedByValuesOfWrongTypes) {
  Execute(
      "UPDATE sandbox SET created_at = x'ff', updated_at = NULL, status = 'Running', "
      "config = CAST(config AS BLOB); UPDATE run SET pid = 'many', started_at = x'00'");
  const SandboxRecord record = Inspect();
  EXPECT_EQ(record.created_at.time_since_epoch().count(), 0);
  EXPECT_EQ(record.updated_at.time_since_epoch().count(), 0);
  EXPECT_TRUE(record.upper);
}

// Returns the journal that 0.7 writes when it boots a sandbox, with the paths of that time.
json Journal(const std::vector<std::pair<std::string, std::string>>& layers) {
  json journal = {{"schema", "microsandbox.runtime-root-disk/1"}, {"layers", json::array()}};
  for (const auto& [path, format] : layers) {
    journal["layers"].push_back({{"layer_id", "layer_1"}, {"path", path}, {"format", format}});
  }
  return journal;
}

TEST_P(MicrosandboxBackendTest, FindsTheUpperOfARestoredSandboxOnTopOfItsBase) {
  const fs::path sandbox = home_ / "sandboxes" / "baseline";
  const fs::path journal = sandbox / "runtime" / "root-disk.json";
  const std::string then = "/srv/msb/sandboxes/baseline/";
  test::WriteFile(journal, Journal({{then + "upper.ext4", "raw"}}).dump());
  EXPECT_EQ(Inspect().upper->path, sandbox / "upper.ext4");
  EXPECT_EQ(Inspect().upper->format, DiskFormat::kRaw);
  EXPECT_TRUE(Inspect().backing.empty());
  test::WriteFile(journal, Journal({{then + "upper.ext4", "raw"},
                                    {"/shared/middle.qcow2", "qcow2"},
                                    {then + "upper-restore-1.qcow2", "qcow2"}})
                               .dump());
  const SandboxRecord record = Inspect();
  EXPECT_EQ(record.upper->path, sandbox / "upper-restore-1.qcow2");
  EXPECT_EQ(record.upper->format, DiskFormat::kQcow2);
  ASSERT_EQ(record.backing.size(), 2U);
  EXPECT_EQ(record.backing[0].name, "middle.qcow2");
  EXPECT_EQ(record.backing[0].disk.path, "/shared/middle.qcow2");
  EXPECT_EQ(record.backing[1].disk.path, sandbox / "upper.ext4");
  EXPECT_EQ(record.backing[1].disk.format, DiskFormat::kRaw);
}

TEST_P(MicrosandboxBackendTest, DoesNotGuessTheUpperWhereTheJournalMakesNoSense) {
  const fs::path journal = home_ / "sandboxes" / "baseline" / "runtime" / "root-disk.json";
  for (const std::string& content :
       {std::string("{"), std::string("[]"), std::string("{}"), Journal({}).dump(),
        Journal({{"/x/y", "vmdk"}}).dump(), Journal({{"/x/..", "raw"}}).dump(),
        Journal({{"", "raw"}}).dump(), std::string(2 << 20, ' ')}) {
    test::WriteFile(journal, content);
    EXPECT_MSB_ERROR(Inspect(), ErrorKind::kInvalidConfig, "sandbox 'baseline'", "root-disk.json");
  }
}

TEST_P(MicrosandboxBackendTest, EndsWhenItIsCancelled) {
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(backend_.Inspect(ctx, "baseline"), ErrorKind::kCancelled, "cancelled");
  EXPECT_MSB_ERROR(backend_.List(ctx), ErrorKind::kCancelled, "cancelled");
}

}  // namespace
}  // namespace msb::vmm
