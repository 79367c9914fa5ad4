// SPDX-License-Identifier: Apache-2.0
//
// create, squash, list, reindex, inspect, verify and remove.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/program/program_home.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class SnapshotTest : public ProgramTest {};

TEST_F(SnapshotTest, CreateReportsTheSnapshot) {
  MakeSandbox("base");
  const std::string out = Output({"create", "clean", "--from", "base"});
  EXPECT_THAT(out, HasSubstr("created snapshot " + (home_ / "snapshots/clean").native()));
  EXPECT_THAT(out, AllOf(HasSubstr("sha256:"), HasSubstr("1.0 MiB")));
  EXPECT_TRUE(HasSnapshot("clean"));
}

TEST_F(SnapshotTest, CreateRecordsLabelsAndIntegrity) {
  MakeSandbox("base");
  const auto document = Document("create", {"create", "--label", "a=b", "clean", "--from-sandbox",
                                            "base", "--integrity", "--label", "url=x?y=z"});
  EXPECT_EQ(document["labels"], (nlohmann::json{{"a", "b"}, {"url", "x?y=z"}}));
  EXPECT_EQ(document["source_sandbox"], "base");
  EXPECT_EQ(document["integrity"]["algorithm"], "msb-file-merkle-blake3-v1");
  EXPECT_EQ(document, Document("inspect", {"inspect", "clean"}));
}

TEST_F(SnapshotTest, PrintsAWarningOnce) {
  MakeSnapshot("clean");
  fs::remove(home_ / "db/snapshots.db");
  WriteFile(home_ / "db/msb.db", "damaged");
  const ProcessResult result = Run({"inspect", "clean", "--backend", "local"});
  EXPECT_EQ(result.exit_code, 0);
  const std::string warning = "could not be updated with " + (home_ / "snapshots/clean").native();
  const std::size_t first = result.err.find(warning);
  ASSERT_NE(first, std::string::npos) << result.err;
  EXPECT_EQ(result.err.find(warning, first + 1), std::string::npos) << result.err;
  EXPECT_THAT(result.err, HasSubstr("restore it from a backup, or move it away"));
}

// CLI11 takes a word in brackets for a list.
TEST_F(SnapshotTest, WordsInBracketsAreNotLists) {
  MakeSnapshot("a");
  MakeSnapshot("b");
  for (const auto* name : {"[a,b]", "[a]", "[]"}) {
    Output({"create", name, "--from", "base", "--label", "[k]=[v,w]", "--label=[l]=x",
            "--label=spec==[1]"});
    const auto document = Document("inspect", {"inspect", name});
    EXPECT_EQ(document["artifact_path"], (home_ / "snapshots" / name).native());
    EXPECT_EQ(document["labels"],
              (nlohmann::json{{"[k]", "[v,w]"}, {"[l]", "x"}, {"spec", "=[1]"}}));
    Output({"verify", name});
    Output({"fork", name, "[s,t]"});
    Output({"sandbox", "rm", "[s,t]"});
    Output({"rm", name});
    EXPECT_FALSE(HasSnapshot(name));
  }
  EXPECT_TRUE(HasSnapshot("a"));
  EXPECT_TRUE(HasSnapshot("b"));
}

TEST_F(SnapshotTest, NamesInBracketsAfterTwoDashesAreNotLists) {
  MakeSnapshot("a");
  Output({"create", "--from", "base", "--", "[a]"});
  EXPECT_EQ(Document("inspect", {"inspect", "--", "[a]"})["artifact_path"],
            (home_ / "snapshots/[a]").native());
  Output({"rm", "--", "[a]"});
  EXPECT_FALSE(HasSnapshot("[a]"));
  EXPECT_TRUE(HasSnapshot("a"));
}

TEST_F(SnapshotTest, CreateWritesToAPath) {
  MakeSandbox("base");
  Output({"create", "--path", dir_ / "one", "--from", "base"});
  Output({"create", "two", "--dest-dir", dir_ / "there", "--from", "base"});
  EXPECT_TRUE(fs::exists(dir_ / "one/upper.ext4"));
  EXPECT_TRUE(fs::exists(dir_ / "there/two/upper.ext4"));
  EXPECT_FALSE(HasSnapshot("two"));
}

TEST_F(SnapshotTest, NamesOutsideTheHomeStandForOneSnapshot) {
  MakeSandbox("base");
  Output({"create", "x", "--dest-dir", "one", "--from", "base"});
  const std::string first = dir_ / "one/x";
  EXPECT_EQ(Document("inspect", {"inspect", "x"})["artifact_path"], first);
  Output({"verify", "x"});
  Output({"export", "x", "out.tar"});
  Output({"fork", "x", "forked"});
  Output({"sandbox", "rm", "forked"});
  Output({"create", "x", "--dest-dir", "two", "--from", "base"});
  for (const Arguments& arguments : std::vector<Arguments>{
           {"rm", "x"}, {"inspect", "x"}, {"verify", "x"}, {"export", "x", "y.tar"}}) {
    const ProcessResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, kInvalidArgumentCode) << arguments[0];
    EXPECT_THAT(result.err, AllOf(HasSubstr("'x'"), HasSubstr(first), HasSubstr(dir_ / "two/x"),
                                  HasSubstr("give the path")));
  }
  EXPECT_TRUE(fs::exists(first));
  EXPECT_TRUE(fs::exists(dir_ / "two/x"));
  // A name refers first to the snapshot in the snapshots directory.
  Output({"create", "x", "--from", "base"});
  Output({"rm", "x"});
  EXPECT_FALSE(HasSnapshot("x"));
  EXPECT_TRUE(fs::exists(dir_ / "two/x"));
}

TEST_F(SnapshotTest, RefusesEmptyArgumentsAndRepeatedLabels) {
  MakeSnapshot("clean");
  for (const Arguments& arguments : std::vector<Arguments>{
           {"create", "", "--from", "base"},
           {"create", "x", "--path", "", "--from", "base"},
           {"export", "clean", ""},
           {"import", ""},
           {"flatten", "clean", ""},
           {"create", "x", "--from", "base", "--label", "a=1", "--label", "a=2"}}) {
    const ProcessResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, kUsageCode) << testing::PrintToString(arguments);
    EXPECT_THAT(result.err, testing::AnyOf(HasSubstr("must not be empty"), HasSubstr("twice")));
  }
}

TEST_F(SnapshotTest, ForceReplacesASnapshot) {
  MakeSnapshot("clean");
  const auto old = Document("inspect", {"inspect", "clean"});
  Output({"create", "clean", "--from", "base", "-f", "--label", "new=yes"});
  EXPECT_NE(Document("inspect", {"inspect", "clean"})["digest"], old["digest"]);
}

TEST_F(SnapshotTest, SquashMakesASnapshotWithoutParent) {
  MakeSandbox("image");
  Output({"sandbox", "create", "base", "--image", dir_ / "image.img", "--disk-format", "qcow2"});
  Output({"create", "first", "--from", "base"});
  const auto second = Document("create", {"create", "second", "--from", "base"});
  EXPECT_FALSE(second["parent_digest"].is_null());
  const auto squashed = Document("squash", {"squash", "second", "alone"});
  EXPECT_TRUE(squashed["parent_digest"].is_null());
  EXPECT_EQ(squashed["format"], "raw");
}

TEST_F(SnapshotTest, ListInAnEmptyHomeSaysHowToBegin) {
  EXPECT_THAT(Output({"list"}), HasSubstr("msb-snapshot create NAME --from SANDBOX"));
  EXPECT_EQ(Output({"list", "--quiet"}), "");
  EXPECT_EQ(Document("list", {"list"}), nlohmann::json::array());
}

TEST_F(SnapshotTest, ListShowsTheNewestSnapshotFirst) {
  MakeSnapshot("older");
  MakeSnapshot("newer");
  const std::string out = Output({"list"});
  EXPECT_THAT(out, AllOf(HasSubstr("NAME"), HasSubstr("SIZE"), HasSubstr("DIGEST")));
  EXPECT_THAT(out, AllOf(HasSubstr("base.img"), HasSubstr("1.0 MiB")));
  EXPECT_LT(out.find("newer"), out.find("older"));
  const auto document = Document("list", {"list"});
  EXPECT_EQ(document[0]["name"], "newer");
  EXPECT_EQ(document[0]["size_bytes"], 1 << 20);
  EXPECT_EQ(Output({"list", "-q"}), document[0]["digest"].get<std::string>() + "\n" +
                                        document[1]["digest"].get<std::string>() + "\n");
}

// Only the runtime makes checkpoints.
TEST_F(SnapshotTest, ACheckpointMatchesTheSchema) {
  MakeSnapshot("clean");
  auto manifest = nlohmann::ordered_json::parse(ReadFile(home_ / "snapshots/clean/snapshot.json"));
  manifest["scope"] = "resumable";
  manifest["state"] = {{"kind", "checkpoint"},
                       {"checkpoint_id", "c"},
                       {"manifest", "sha256:" + std::string(64, 'a')}};
  WriteFile(home_ / "snapshots/check/snapshot.json", manifest.dump());
  Output({"reindex"});
  EXPECT_EQ(Document("inspect", {"inspect", "check"})["format"], "");
  EXPECT_EQ(Document("list", {"list"}).size(), 2U);
  Document("tree", {"tree"});
  EXPECT_EQ(Document("prune", {"prune", "--dry-run", "--keep-last", "0"})["snapshots"].size(), 2U);
}

TEST_F(SnapshotTest, TheWordsOfTheRuntimeWork) {
  MakeSnapshot("clean");
  EXPECT_EQ(Output({"ls", "--format", "json"}), Output({"list", "--json"}));
  Output({"save", "clean", dir_ / "clean.tar.zst"});
  Output({"rm", "clean"});
  Output({"load", dir_ / "clean.tar.zst", "--name", "again"});
  EXPECT_TRUE(HasSnapshot("again"));
  EXPECT_FALSE(HasSnapshot("clean"));
}

TEST_F(SnapshotTest, ReindexRebuildsTheIndex) {
  MakeSnapshot("a");
  MakeSnapshot("b");
  fs::remove_all(home_ / "db");
  EXPECT_THAT(Output({"reindex"}),
              AllOf(HasSubstr("indexed 2 snapshots"), HasSubstr((home_ / "snapshots").native())));
  EXPECT_EQ(Document("reindex", {"reindex"})["indexed"], 2);
  EXPECT_EQ(Run({"reindex", dir_ / "empty"}).exit_code, kIoCode);
  fs::create_directory(dir_ / "empty");
  EXPECT_EQ(Document("reindex", {"reindex", dir_ / "empty"})["indexed"], 0);
}

TEST_F(SnapshotTest, InspectShowsWhatIsRecorded) {
  MakeSnapshot("clean", {"--label", "a=b", "--label", "c=d", "--integrity"});
  const std::string out = Output({"inspect", "clean"});
  EXPECT_THAT(out, HasSubstr("Source Sandbox: base\n"));
  EXPECT_THAT(out, HasSubstr("Consistency:    stopped\n"));
  EXPECT_THAT(out, HasSubstr("Labels:         a=b, c=d\n"));
  EXPECT_THAT(out, HasSubstr("Size:           1.0 MiB\n"));
  EXPECT_THAT(out, Not(HasSubstr("Verification:")));
  EXPECT_THAT(Output({"inspect", "clean", "--verify"}), HasSubstr("Verification:   verified ("));
  const auto document = Document("inspect", {"inspect", "clean", "--verify"});
  EXPECT_EQ(document["verification"]["upper"]["kind"], "verified");
  EXPECT_EQ(document, Document("inspect", {"inspect", document["digest"], "--verify"}));
}

TEST_F(SnapshotTest, ADigestOrItsBeginningStandsForTheSnapshot) {
  MakeSnapshot("clean");
  MakeSnapshot("other", {"--label", "a=b"});
  const std::string full = Document("inspect", {"inspect", "clean"})["digest"];
  for (const std::string& digest : {full, full.substr(0, 19)}) {
    SCOPED_TRACE(digest);
    EXPECT_EQ(Document("inspect", {"inspect", digest})["digest"], full);
    Output({"export", digest, dir_ / "archive"});
    Output({"flatten", digest, dir_ / "disk"});
    Output({"squash", digest, "squashed", "--force"});
    Output({"fork", digest, "fork", "--replace"});
    Output({"restore", "fork", digest});
  }
  const ProcessResult since =
      Run({"export", "squashed", dir_ / "since", "--since", full.substr(0, 19)});
  EXPECT_THAT(since.err, HasSubstr("does not descend from the snapshot in --since, " + full));
  for (const auto* few : {"sha256:", "sha256:abc"}) {
    const ProcessResult result = Run({"rm", few});
    EXPECT_EQ(result.exit_code, 21);
    EXPECT_THAT(result.err, HasSubstr("at least 4 digits"));
  }
  EXPECT_EQ(Run({"export", "sha256:" + std::string(12, 'f'), dir_ / "x"}).exit_code,
            kSnapshotNotFoundCode);
  Output({"rm", full.substr(0, 19)});
  EXPECT_FALSE(HasSnapshot("clean"));
}

TEST_F(SnapshotTest, VerifyReportsEachSnapshot) {
  MakeSnapshot("clean", {"--integrity"});
  MakeSnapshot("plain");
  const std::string out = Output({"verify", "clean", "plain"});
  EXPECT_THAT(out, AllOf(HasSubstr("Snapshot:       clean\n"), HasSubstr("verified (msb-file")));
  EXPECT_THAT(out, AllOf(HasSubstr("Snapshot:       plain\n"), HasSubstr("not checked (")));
  const auto results = Document("verify", {"verify", "clean", "plain"})["results"];
  EXPECT_EQ(results[0]["upper"]["kind"], "verified");
  EXPECT_EQ(results[1]["upper"]["kind"], "not_recorded");
}

TEST_F(SnapshotTest, VerifyNamesTheFilesThatADiskIsBackedBy) {
  MakeSandbox("image");
  Output({"sandbox", "create", "base", "--image", dir_ / "image.img", "--disk-format", "qcow2"});
  Output({"create", "first", "--from", "base", "--integrity"});
  EXPECT_THAT(Output({"verify", "first"}), HasSubstr("  backed by"));
  EXPECT_FALSE(Document("verify", {"verify", "first"})["results"][0]["backing"].empty());
}

TEST_F(SnapshotTest, VerifyDetectsDamage) {
  MakeSnapshot("clean", {"--integrity"});
  Damage("clean");
  const ProcessResult result = Run({"verify", "clean"});
  EXPECT_EQ(result.exit_code, kIntegrityCode);
  EXPECT_THAT(result.err, HasSubstr("error: "));
  EXPECT_EQ(Document("verify", {"verify", "clean"}, kIntegrityCode)["results"][0]["error"]["kind"],
            "SnapshotIntegrity");
}

TEST_F(SnapshotTest, RemoveDeletesEachSnapshot) {
  MakeSnapshot("a");
  MakeSnapshot("b");
  MakeSnapshot("c");
  EXPECT_EQ(Output({"remove", "a", "b"}), "removed snapshot a\nremoved snapshot b\n");
  EXPECT_EQ(Document("remove", {"rm", "c"})["results"], nlohmann::json::parse(R"([{"name":"c"}])"));
  EXPECT_EQ(Output({"list", "-q"}), "");
}

TEST_F(SnapshotTest, OneFailureDoesNotKeepTheOtherNamesFromBeingRemoved) {
  MakeSnapshot("a");
  MakeSnapshot("b");
  const ProcessResult result = Run({"rm", "a", "absent", "b"});
  EXPECT_EQ(result.exit_code, kSnapshotNotFoundCode);
  EXPECT_EQ(result.out, "removed snapshot a\nremoved snapshot b\n");
  EXPECT_THAT(result.err, AllOf(HasSubstr("absent"), HasSubstr("hint: to see the snapshots")));
  const auto results = Document("remove", {"rm", "absent", "a/b/"}, kSnapshotNotFoundCode);
  EXPECT_EQ(results["results"].size(), 2U);
}

TEST_F(SnapshotTest, DifferentFailuresGiveExitCode1) {
  MakeSnapshot("a", {"--integrity"});
  MakeSnapshot("b", {"--integrity"});
  Damage("a");
  const ProcessResult result = Run({"verify", "absent", "a", "b"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("Snapshot:       b\n"));
}

TEST_F(SnapshotTest, QuietPrintsErrorsOnly) {
  MakeSandbox("base");
  EXPECT_EQ(Output({"create", "clean", "--from", "base", "--quiet"}), "");
  EXPECT_EQ(Output({"verify", "clean", "-q"}), "");
  const ProcessResult result = Run({"rm", "absent", "clean", "-q"});
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, AllOf(HasSubstr("error: "), HasSubstr("absent"), Not(HasSubstr("hint"))));
}

TEST_F(SnapshotTest, OptionsMayComeBeforeTheCommand) {
  MakeSnapshot("clean");
  EXPECT_EQ(Output({"--json", "list"}), Output({"list", "--json"}));
  EXPECT_EQ(Output({"--home", dir_ / "other", "list", "-q"}), "");
  EXPECT_EQ(Output({"list", "-q", "--home", dir_ / "other"}), "");
}

// The documents of homes that the released runtimes wrote match the schema, too.
TEST_F(SnapshotTest, ListsTheHomesOfReleasedRuntimes) {
  for (const std::string& release : FixtureReleases()) {
    const std::string home = UnpackFixtureHome(release, dir_ / release);
    const auto list = Document("list", {"list", "--backend", "local", "--home", home});
    EXPECT_FALSE(list.empty()) << release;
    Document("tree", {"tree", "--backend", "local", "--home", home});
    for (const auto& snapshot : list) {
      Document("inspect",
               {"inspect", snapshot["artifact_path"], "--backend", "local", "--home", home});
    }
  }
}

}  // namespace
}  // namespace msb::test
