// SPDX-License-Identifier: Apache-2.0
//
// df, prune and restore.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/program/program_home.h"
#include "tests/program/terminal.h"
#include "tests/support/mounts.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr int kStillRunningCode = 12;
constexpr int kInvalidArgumentCode = 21;

class SpaceTest : public ProgramTest {
 protected:
  // Makes a snapshot of a sandbox with a disk of this many bytes of data.
  void MakeLarge(const std::string& name, std::uint64_t bytes) {
    MakeSandbox(name, bytes);
    Output({"create", name, "--from", name});
  }
};

TEST_F(SpaceTest, DfShowsTheLargestFirstAndTheTotal) {
  MakeLarge("large", 3 << 20);
  MakeSnapshot("small");
  const std::string out = Output({"df"});
  EXPECT_THAT(out, AllOf(HasSubstr("NAME"), HasSubstr("SIZE"), HasSubstr("USED"),
                         HasSubstr("EXCLUSIVE"), HasSubstr("3.0 MiB")));
  EXPECT_LT(out.find("\nlarge "), out.find("\nsmall "));
  EXPECT_LT(out.find("\nsmall "), out.find("\nTOTAL "));
  const auto document = Document("df", {"df"});
  EXPECT_EQ(document["snapshots"][0]["name"], "large");
  EXPECT_GE(document["snapshots"][0]["allocated_bytes"], 3 << 20);
  for (const auto* field : {"apparent_bytes", "allocated_bytes", "exclusive_bytes"}) {
    std::uint64_t sum = 0;
    for (const auto& snapshot : document["snapshots"]) sum += snapshot[field].get<std::uint64_t>();
    EXPECT_EQ(document["total"][field], sum) << field;
  }
  EXPECT_EQ(Output({"df", "--quiet"}), "");
}

TEST_F(SpaceTest, DfInAnEmptyHome) {
  EXPECT_EQ(Output({"df"}), "There are no snapshots.\n");
  const auto document = Document("df", {"df"});
  EXPECT_TRUE(document["snapshots"].empty());
  EXPECT_EQ(document["total"]["allocated_bytes"], 0);
}

TEST_F(SpaceTest, DfFitsTheTerminal) {
  MakeSnapshot("clean");
  Terminal wide(120, Command({"df"}), options_);
  EXPECT_EQ(wide.Wait(), 0);
  EXPECT_THAT(wide.output(), AllOf(HasSubstr("SIZE"), HasSubstr("DIGEST")));
  Terminal narrow(40, Command({"df"}), options_);
  EXPECT_EQ(narrow.Wait(), 0);
  EXPECT_LE(WidthOf(narrow.output()), 40U);
  EXPECT_THAT(narrow.output(), AllOf(HasSubstr("EXCLUSIVE"), Not(HasSubstr("DIGEST"))));
}

TEST_F(SpaceTest, DfMatchesTheSchemaForTheHomesOfReleasedRuntimes) {
  for (const std::string& release : FixtureReleases()) {
    const std::string home = UnpackFixtureHome(release, dir_ / release);
    const auto document = Document("df", {"df", "--backend", "local", "--home", home});
    EXPECT_FALSE(document["snapshots"].empty()) << release;
    Document("prune",
             {"prune", "--keep-last", "0", "--dry-run", "--backend", "local", "--home", home});
  }
}

TEST_F(SpaceTest, PruneReportsWhatItRemovesAndFrees) {
  MakeLarge("old", 2 << 20);
  MakeSnapshot("new");
  const std::string planned = Output({"prune", "--keep-last", "1", "--dry-run"});
  EXPECT_THAT(planned, AllOf(HasSubstr("would remove snapshot old (sha256:"),
                             HasSubstr("1 snapshot: would free at least 2.0 MiB\n")));
  EXPECT_TRUE(HasSnapshot("old"));
  const std::string done = Output({"prune", "--keep-last", "1"});
  EXPECT_THAT(done, AllOf(HasSubstr("removed snapshot old (sha256:"),
                          HasSubstr("1 snapshot: freed at least 2.0 MiB\n")));
  EXPECT_FALSE(HasSnapshot("old"));
  EXPECT_TRUE(HasSnapshot("new"));
  EXPECT_EQ(Output({"prune", "--keep-last", "1"}), "There is nothing to remove.\n");
}

TEST_F(SpaceTest, PruneReportsWhatItRemovedBeforeAFailure) {
  const PrivateMounts mounts;
  if (!mounts.failure().empty()) GTEST_SKIP() << mounts.failure();
  for (const std::string how : {"", "--json"}) {
    for (const auto* name : {"p1", "p2", "p3"}) MakeSnapshot(name);
    // A directory that is a mount point cannot be renamed.
    const std::filesystem::path busy = home_ / "snapshots/p2";
    ASSERT_EQ(Bash("mount --bind '" + busy.native() + "' '" + busy.native() + "'").exit_code, 0);
    const ProcessResult result = Bash("$P prune --keep-last 0 " + how);
    EXPECT_EQ(Bash("umount '" + busy.native() + "'").exit_code, 0);
    EXPECT_EQ(result.exit_code, kIoCode);
    EXPECT_FALSE(HasSnapshot("p1"));
    EXPECT_TRUE(HasSnapshot("p2"));
    EXPECT_FALSE(HasSnapshot("p3"));
    if (how.empty()) {
      EXPECT_THAT(result.out, AllOf(HasSubstr("removed snapshot p3"), HasSubstr("p1 (sha256:")));
      EXPECT_THAT(result.err, HasSubstr("snapshots/p2"));
    } else {
      const auto document = nlohmann::json::parse(result.out);
      EXPECT_EQ(document["snapshots"].size(), 2U);
      EXPECT_EQ(document["error"]["kind"], "IO");
    }
    Output({"rm", "p2"});
  }
}

TEST_F(SpaceTest, PruneSelectsByAgeAndLabels) {
  MakeSnapshot("a", {"--label", "job=a"});
  MakeSnapshot("b", {"--label", "job=b", "--label", "keep=no"});
  auto document = Document("prune", {"prune", "--older-than", "1d", "--label", "job=a"});
  EXPECT_TRUE(document["snapshots"].empty());
  EXPECT_EQ(document["freed_bytes"], 0);
  document = Document("prune", {"prune", "-n", "--label", "job=b", "--label", "keep=no"});
  EXPECT_EQ(document["dry_run"], true);
  EXPECT_EQ(document["snapshots"][0]["name"], "b");
  document = Document("prune", {"prune", "--older-than", "0s", "--label", "job=a"});
  EXPECT_EQ(document["dry_run"], false);
  EXPECT_EQ(document["snapshots"][0]["name"], "a");
  EXPECT_GT(document["freed_bytes"], 0);
  EXPECT_EQ(Output({"prune", "--label", "job=b", "--quiet"}), "");
  EXPECT_EQ(Output({"list", "-q"}), "");
}

TEST_F(SpaceTest, PruneRefusesWhatIsNoRule) {
  MakeSnapshot("clean");
  EXPECT_THAT(Run({"prune"}).err, HasSubstr("give --keep-last, --older-than or --label"));
  EXPECT_THAT(Run({"prune", "--dry-run"}).err, HasSubstr("give --keep-last"));
  EXPECT_THAT(Run({"prune", "--older-than", "30"}).err,
              HasSubstr("'30' must be a number with the unit s, m, h, d or w, such as 30d"));
  for (const Arguments& arguments :
       {Arguments{"prune"}, Arguments{"prune", "--older-than", "soon"},
        Arguments{"prune", "--keep-last=-1"}, Arguments{"prune", "--label", "x"}}) {
    EXPECT_EQ(Run(arguments).exit_code, kUsageCode);
  }
  EXPECT_TRUE(HasSnapshot("clean"));
}

class RestoreCommandTest : public ProgramTest {
 protected:
  fs::path Disk() const {
    const auto run = Run({"sandbox", "list", "--json"});
    return nlohmann::json::parse(run.out)[0]["upper"]["path"].get<std::string>();
  }
};

TEST_F(RestoreCommandTest, PutsASandboxBack) {
  MakeSnapshot("clean");
  const std::string before = ReadFile(Disk());
  PatchFile(Disk(), 0, "changed");
  EXPECT_EQ(Output({"restore", "base", "clean"}), "restored sandbox base to snapshot clean\n");
  EXPECT_TRUE(ReadFile(Disk()) == before);
  const auto document = Document("restore", {"restore", "base", home_ / "snapshots/clean"});
  EXPECT_EQ(document["name"], "base");
  EXPECT_EQ(document["status"], "stopped");
  EXPECT_EQ(document["upper"]["base_digest"], Document("inspect", {"inspect", "clean"})["digest"]);
}

TEST_F(RestoreCommandTest, ReportsWhatPreventsIt) {
  MakeSnapshot("clean");
  EXPECT_EQ(Run({"restore", "absent", "clean"}).exit_code, kSandboxNotFoundCode);
  EXPECT_EQ(Run({"restore", "base", "absent"}).exit_code, kSnapshotNotFoundCode);
  EXPECT_EQ(Run({"restore", "base"}).exit_code, kUsageCode);
  MakeSandbox("other", 1 << 20);
  const ProcessResult result = Run({"restore", "other", "clean"});
  EXPECT_EQ(result.exit_code, kInvalidArgumentCode);
  EXPECT_THAT(result.err, AllOf(HasSubstr("base.img"), HasSubstr("other.img")));
  EXPECT_EQ(Document("error", {"restore", "other", "clean"}, kInvalidArgumentCode)["error"]["kind"],
            "InvalidArgument");
}

TEST_F(RestoreCommandTest, RefusesARunningSandbox) {
  MakeSnapshot("clean");
  Client client = LocalClient(home_);
  const Sandbox running = StartSandbox(Context::Background(), "base", client);
  const ProcessResult result = Run({"restore", "base", "clean"});
  EXPECT_EQ(result.exit_code, kStillRunningCode);
  EXPECT_THAT(result.err, HasSubstr("sandbox 'base' is running"));
}

}  // namespace
}  // namespace msb::test
