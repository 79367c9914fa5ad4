// SPDX-License-Identifier: Apache-2.0
//
// Prune: removes snapshots by number, age and labels.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/forwarding_backend.h"
#include "tests/support/sandbox_disk.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::hours;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class PruneTest : public ::testing::Test {
 protected:
  using Names = std::vector<std::string>;

  PruneTest() {
    MakeSparseFile(dir_ / "base.img", 1 << 20, {{0, Noise(70'000, 1)}});
    CreateSandbox(ctx_, "raw", {WithImage(dir_ / "base.img")}, raw_).Close();
    CreateSandbox(ctx_, "cow", {WithImage(dir_ / "base.img")}, cow_).Close();
  }

  Client ClientFor(DiskFormat format) const {
    return Client({.home = dir_ / "home",
                   .backend = "local",
                   .upper_format = format,
                   .log = [](std::string_view message) { ADD_FAILURE() << message; }});
  }

  // Makes snapshots that do not depend on each other, the oldest first.
  void MakeSnapshots(const Names& names, const std::map<std::string, std::string>& labels = {}) {
    for (const std::string& name : names) {
      Snapshot::Create(ctx_, "raw", {.name = name, .labels = labels}, raw_);
    }
  }

  // Makes snapshots of which each is the parent of the next, and removes their sandbox unless
  // keep_sandbox is set.
  void MakeChain(const Names& names, bool keep_sandbox = false) {
    for (const std::string& name : names) Snapshot::Create(ctx_, "cow", {.name = name}, cow_);
    if (!keep_sandbox) RemoveSandbox(ctx_, "cow", cow_);
  }

  static Names NamesOf(const std::vector<SnapshotHandle>& handles) {
    Names names;
    for (const SnapshotHandle& handle : handles) names.push_back(handle.Name().value());
    return names;
  }

  // Expects a dry run to report the snapshots that the call then removes, and to remove nothing.
  // Returns the names of those that were removed.
  Names Prune(SnapshotPruneOptions options) {
    const auto before = ListTree(dir_ / "home/snapshots");
    options.dry_run = true;
    const Names planned = NamesOf(Snapshot::Prune(ctx_, options, raw_));
    EXPECT_EQ(ListTree(dir_ / "home/snapshots"), before);
    options.dry_run = false;
    Names pruned = NamesOf(Snapshot::Prune(ctx_, options, raw_));
    EXPECT_EQ(pruned, planned);
    for (const std::string& name : pruned) EXPECT_FALSE(fs::exists(PathOf(name))) << name;
    return pruned;
  }

  Names Left() { return NamesOf(Snapshot::List(ctx_, raw_)); }
  fs::path PathOf(const std::string& name) const { return dir_ / "home/snapshots" / name; }

  // Makes the snapshot look as if it was created at this time. Its digest changes.
  void SetCreated(const std::string& name, const std::string& time) {
    const fs::path file = PathOf(name) / "snapshot.json";
    std::string json = ReadFile(file);
    const std::string field = "\"created_at\":\"";
    const std::size_t begin = json.find(field) + field.size();
    json.replace(begin, json.find('"', begin) - begin, time);
    WriteFile(file, json);
    Snapshot::Reindex(ctx_, "", raw_);
  }

  // Makes the snapshot look as if it was created this long ago. Its digest changes.
  void MakeOlder(const std::string& name, seconds age) {
    const auto time = std::chrono::floor<seconds>(std::chrono::system_clock::now() - age);
    const std::time_t count = time.time_since_epoch().count();
    std::array<char, 32> text{};
    std::tm utc{};
    gmtime_r(&count, &utc);
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
    SetCreated(name, text.data());
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Client raw_ = ClientFor(DiskFormat::kRaw);
  Client cow_ = ClientFor(DiskFormat::kQcow2);
};

TEST_F(PruneTest, KeepsTheNewest) {
  MakeSnapshots({"s1", "s2", "s3", "s4"});
  EXPECT_THAT(Prune({.keep_last = 2}), ElementsAre("s2", "s1"));
  EXPECT_THAT(Prune({.keep_last = 2}), IsEmpty());
  EXPECT_THAT(Left(), ElementsAre("s4", "s3"));
  EXPECT_THAT(Prune({.keep_last = 0}), ElementsAre("s4", "s3"));
  EXPECT_THAT(Left(), IsEmpty());
}

TEST_F(PruneTest, KeepsTheCopiesOfWhatItKeeps) {
  MakeSnapshots({"s1", "s2"});
  fs::copy(PathOf("s2"), PathOf("copy"), fs::copy_options::recursive);
  Snapshot::Reindex(ctx_, "", raw_);
  EXPECT_THAT(Prune({.keep_last = 1}), ElementsAre("s1"));
  EXPECT_TRUE(fs::exists(PathOf("s2")));
  EXPECT_TRUE(fs::exists(PathOf("copy")));
}

TEST_F(PruneTest, LeavesSnapshotsOutsideTheSnapshotsDirectoryAlone) {
  MakeSnapshots({"s1", "s2"});
  Snapshot::Create(ctx_, "raw", {.path = dir_ / "outside/own"}, raw_);
  Snapshot::Export(ctx_, "s1", dir_ / "s1.tar", {}, raw_);
  Snapshot::Import(ctx_, dir_ / "s1.tar", dir_ / "outside", {.name = "copy"}, raw_);
  EXPECT_THAT(Prune({.keep_last = 1}), ElementsAre("s1"));
  EXPECT_THAT(Prune({.keep_last = 0}), ElementsAre("s2"));
  EXPECT_TRUE(fs::exists(dir_ / "outside/own"));
  EXPECT_TRUE(fs::exists(dir_ / "outside/copy"));
}

TEST_F(PruneTest, RemovesWhatIsOldEnough) {
  MakeSnapshots({"s1", "s2", "s3"});
  MakeOlder("s1", hours(48));
  MakeOlder("s2", hours(24));
  EXPECT_THAT(Prune({.older_than = hours(72)}), IsEmpty());
  EXPECT_THAT(Prune({.older_than = seconds::max()}), IsEmpty());
  EXPECT_THAT(Prune({.older_than = hours(25)}), ElementsAre("s1"));
  EXPECT_THAT(Prune({.older_than = hours(24)}), ElementsAre("s2"));
  EXPECT_THAT(Prune({.older_than = seconds(0)}), ElementsAre("s3"));
}

TEST_F(PruneTest, RemovesWhatIsOlderThanAClockCanTell) {
  MakeSnapshots({"s1", "s2", "s3"});
  SetCreated("s1", "0001-01-01T00:00:00Z");  // Go's zero time.
  SetCreated("s3", "9999-12-31T23:59:59Z");
  EXPECT_THAT(Prune({.older_than = std::chrono::hours(24)}), ElementsAre("s1"));
  EXPECT_THAT(Prune({.older_than = seconds::max()}), IsEmpty());
}

TEST_F(PruneTest, ConsidersTheSnapshotsWithTheLabelsOnly) {
  MakeSnapshots({"a1", "a2"}, {{"job", "a"}, {"kind", "test"}});
  MakeSnapshots({"b1", "b2"}, {{"job", "b"}, {"kind", "test"}});
  MakeSnapshots({"other"});
  EXPECT_THAT(Prune({.labels = {{"job", "c"}}}), IsEmpty());
  EXPECT_THAT(Prune({.labels = {{"job", "a"}, {"kind", "other"}}}), IsEmpty());
  // The newest with these labels is older than all others.
  EXPECT_THAT(Prune({.keep_last = 1, .labels = {{"job", "a"}, {"kind", "test"}}}),
              ElementsAre("a1"));
  EXPECT_THAT(Prune({.labels = {{"kind", "test"}}}), ElementsAre("b2", "b1", "a2"));
  EXPECT_THAT(Left(), ElementsAre("other"));
}

TEST_F(PruneTest, EveryOptionMustPermitTheRemoval) {
  MakeSnapshots({"s1", "s2", "s3", "s4"}, {{"k", "v"}});
  // Snapshots of one disk and time are copies of each other.
  MakeOlder("s1", hours(50));
  MakeOlder("s2", hours(49));
  MakeOlder("s3", hours(48));
  EXPECT_THAT(Prune({.keep_last = 2, .older_than = hours(24), .labels = {{"k", "v"}}}),
              UnorderedElementsAre(testing::_, testing::_));
  EXPECT_EQ(Left().size(), 2U);
  EXPECT_THAT(Prune({.keep_last = 0, .older_than = hours(24)}), testing::SizeIs(1));
  EXPECT_THAT(Left(), ElementsAre("s4"));
}

TEST_F(PruneTest, RemovesChildrenBeforeParents) {
  MakeChain({"s1", "s2", "s3"});
  EXPECT_THAT(Prune({.keep_last = 0}), ElementsAre("s3", "s2", "s1"));
}

TEST_F(PruneTest, KeepsTheAncestorsOfWhatIsKept) {
  MakeChain({"s1", "s2", "s3"});
  MakeSnapshots({"alone"});
  EXPECT_THAT(Prune({.keep_last = 2}), IsEmpty());
  // "alone" is the newest, so "s3" and then its ancestors may go.
  EXPECT_THAT(Prune({.keep_last = 1}), ElementsAre("s3", "s2", "s1"));
  EXPECT_THAT(Left(), ElementsAre("alone"));
}

TEST_F(PruneTest, KeepsWhatASandboxIsBackedBy) {
  MakeChain({"s1", "s2", "s3"}, /*keep_sandbox=*/true);
  CreateSandbox(ctx_, "old", {WithSnapshot("s2")}, cow_).Close();
  RemoveSandbox(ctx_, "cow", cow_);
  EXPECT_THAT(Prune({.keep_last = 0}), ElementsAre("s3"));
  // After a restore, it needs another snapshot.
  Snapshot::Restore(ctx_, "old", "s1", cow_);
  EXPECT_THAT(Prune({.keep_last = 0}), ElementsAre("s2"));
  for (const char* name : {"s1"}) {
    EXPECT_NO_THROW(CreateSandbox(ctx_, "new", {WithSnapshot(name)}, cow_).Close());
  }
}

// The recipe of docs/space.md.
TEST_F(PruneTest, ReplacesAChainByASquashedSnapshot) {
  WriteAsGuest("cow", 3, 65'536, cow_);
  MakeChain({"s1", "s2", "s3"}, /*keep_sandbox=*/true);
  const std::string content = DiskOf("cow", cow_);
  Snapshot::Squash(ctx_, "s3", {.name = "base"}, cow_);
  Snapshot::Restore(ctx_, "cow", "base", cow_);
  EXPECT_THAT(Prune({.keep_last = 1}), ElementsAre("s3", "s2", "s1"));
  EXPECT_TRUE(DiskOf("cow", cow_) == content);
  const SnapshotArtifact next = Snapshot::Create(ctx_, "cow", {.name = "next"}, cow_);
  EXPECT_EQ(next.Format(), "qcow2");
  EXPECT_EQ(next.Parent(), Snapshot::Get(ctx_, "base", cow_).Digest());
  Snapshot::Flatten(ctx_, "next", dir_ / "flat", {}, cow_);
  EXPECT_TRUE(ReadFile(dir_ / "flat") == content);
}

TEST_F(PruneTest, RemovesAParentOfWhichThereIsAnotherCopy) {
  MakeChain({"s1", "s2"});
  Snapshot::Export(ctx_, "s1", dir_ / "s1.tar", {.plain_tar = true}, cow_);
  fs::copy(PathOf("s1"), PathOf("copy"), fs::copy_options::recursive);
  Snapshot::Reindex(ctx_, "", cow_);
  // One of the two copies is enough for s2.
  EXPECT_THAT(Prune({.keep_last = 1}), ElementsAre(testing::AnyOf("s1", "copy")));
  EXPECT_THAT(Prune({.keep_last = 1}), IsEmpty());
  EXPECT_EQ(Snapshot::Open(ctx_, "s2", cow_).Verify(ctx_).upper.kind, "not_recorded");
}

TEST_F(PruneTest, NeitherCountsNorRemovesWhatIsAbsentOrDamaged) {
  std::vector<std::string> warnings;
  Client client = LocalClient(dir_ / "home", &warnings);
  MakeSnapshots({"s1", "s2", "gone", "damaged", "short"});
  fs::remove_all(PathOf("gone"));
  WriteFile(PathOf("damaged") / "snapshot.json", "{");
  fs::resize_file(PathOf("short") / "upper.ext4", 1000);
  EXPECT_THAT(NamesOf(Snapshot::Prune(ctx_, {.keep_last = 1}, client)), ElementsAre("s1"));
  EXPECT_TRUE(fs::exists(PathOf("damaged")));
  EXPECT_TRUE(fs::exists(PathOf("short")));
  EXPECT_THAT(warnings, testing::IsSupersetOf({testing::HasSubstr("damaged/snapshot.json"),
                                               testing::HasSubstr("short/upper.ext4")}));
}

TEST_F(PruneTest, SkipsSymbolicLinks) {
  std::vector<std::string> warnings;
  Client client = LocalClient(dir_ / "home", &warnings);
  MakeSnapshots({"s1", "linked", "s3"});
  fs::rename(PathOf("linked"), dir_ / "elsewhere");
  fs::create_directory_symlink(dir_ / "elsewhere", PathOf("linked"));
  EXPECT_THAT(NamesOf(Snapshot::Prune(ctx_, {.keep_last = 0}, client)), ElementsAre("s3", "s1"));
  EXPECT_TRUE(fs::exists(dir_ / "elsewhere/snapshot.json"));
  EXPECT_THAT(warnings, Contains(testing::AllOf(testing::HasSubstr("snapshots/linked"),
                                                testing::HasSubstr("by its own path"))));
}

// A symbolic link is not another copy that could serve the children.
TEST_F(PruneTest, AnAliasDoesNotReplaceTheParent) {
  MakeChain({"s1", "s2"});
  fs::create_directory_symlink("s1", PathOf("latest"));
  EXPECT_EQ(Snapshot::Open(ctx_, PathOf("latest"), cow_).Digest(),
            Snapshot::Open(ctx_, "s1", cow_).Digest());
  EXPECT_THAT(Left(), ElementsAre("s2", "s1")) << "the alias is not in the index";
  EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, "s1", false, cow_), ErrorKind::kSnapshotHasChildren, "s1",
                   "s2");
  EXPECT_THAT(Prune({.keep_last = 1}), IsEmpty());
}

TEST_F(PruneTest, RefusesOptionsThatWouldRemoveEverything) {
  MakeSnapshots({"s"});
  EXPECT_MSB_ERROR(Snapshot::Prune(ctx_, {}, raw_), ErrorKind::kInvalidArgument, "keep_last",
                   "older_than", "labels", "SnapshotPruneOptions");
  EXPECT_MSB_ERROR(Snapshot::Prune(ctx_, {.dry_run = true}, raw_), ErrorKind::kInvalidArgument,
                   "keep_last, older_than or labels");
  EXPECT_MSB_ERROR(Snapshot::Prune(ctx_, {.older_than = seconds(-1)}, raw_),
                   ErrorKind::kInvalidArgument, "older_than must not be negative", "-1 s");
  EXPECT_THAT(Left(), ElementsAre("s"));
}

// A client whose backend runs a function after it has listed the sandboxes.
class PrunedMeanwhile : public PruneTest {
 protected:
  // Prunes all but the newest. Calls meanwhile after the plan was made (n is 0), or during removal
  // number n, counted from 1, with the snapshot and the index locked.
  Names PruneAll(int n, const std::function<void()>& meanwhile, const Context& ctx,
                 std::size_t keep_last = 0) {
    class Backend : public ForwardingBackend {
     public:
      Backend(std::shared_ptr<vmm::Backend> real, int calls, std::function<void()> function)
          : ForwardingBackend(std::move(real)), calls_(calls), function_(std::move(function)) {}
      // Prune lists the sandboxes at the end of its plan, and again during each removal.
      std::vector<vmm::SandboxRecord> List(const Context& at) override {
        auto sandboxes = ForwardingBackend::List(at);
        if (calls_-- == 0) function_();
        return sandboxes;
      }

     private:
      int calls_;
      std::function<void()> function_;
    };
    const Client client({.home = dir_ / "home",
                         .backend = std::make_shared<Backend>(cow_.backend(), n, meanwhile)});
    return NamesOf(Snapshot::Prune(ctx, {.keep_last = keep_last}, client));
  }
};

TEST_F(PrunedMeanwhile, KeepsASnapshotThatGetsAChildMeanwhile) {
  MakeChain({"s1", "s2"}, /*keep_sandbox=*/true);
  CreateSandbox(ctx_, "late", {WithSnapshot("s1")}, cow_).Close();
  RemoveSandbox(ctx_, "cow", cow_);
  RemoveSandbox(ctx_, "late", cow_);
  const auto give_a_child = [&] {
    CreateSandbox(ctx_, "late", {WithSnapshot("s1")}, cow_).Close();
    Snapshot::Create(ctx_, "late", {.name = "child"}, cow_);
    RemoveSandbox(ctx_, "late", cow_);
  };
  EXPECT_THAT(PruneAll(0, give_a_child, ctx_), ElementsAre("s2"));
  EXPECT_THAT(Left(), ElementsAre("child", "s1"));
  EXPECT_NO_THROW(Snapshot::Flatten(ctx_, "child", dir_ / "flat", {}, cow_));
}

TEST_F(PrunedMeanwhile, KeepsASnapshotThatIsBootedMeanwhile) {
  MakeChain({"s1", "s2"});
  const auto boot = [&] { CreateSandbox(ctx_, "late", {WithSnapshot("s2")}, cow_).Close(); };
  EXPECT_THAT(PruneAll(0, boot, ctx_), IsEmpty());
  EXPECT_THAT(Left(), ElementsAre("s2", "s1"));
}

TEST_F(PrunedMeanwhile, SkipsASnapshotThatIsRemovedMeanwhile) {
  MakeSnapshots({"s1", "s2", "s3"});
  EXPECT_THAT(PruneAll(
                  0, [&] { Snapshot::Remove(ctx_, "s2", false, raw_); }, ctx_),
              ElementsAre("s3", "s1"));
}

TEST_F(PrunedMeanwhile, NeverRemovesTheCopyThatItKeeps) {
  MakeChain({"s1", "s2"});
  fs::copy(PathOf("s1"), PathOf("copy"), fs::copy_options::recursive);
  Snapshot::Reindex(ctx_, "", raw_);
  // The child needs one of the two.
  const Names planned = NamesOf(Snapshot::Prune(ctx_, {.keep_last = 1, .dry_run = true}, raw_));
  ASSERT_EQ(planned.size(), 1U);
  const auto remove = [&] { Snapshot::Remove(ctx_, PathOf(planned[0]), false, raw_); };
  EXPECT_THAT(PruneAll(0, remove, ctx_, /*keep_last=*/1), IsEmpty());
  EXPECT_THAT(Left(), ElementsAre("s2", planned[0] == "s1" ? "copy" : "s1"));
}

TEST_F(PrunedMeanwhile, ACancelledCallKeepsTheRest) {
  MakeChain({"s1", "s2", "s3"});
  const auto [ctx, cancel] = ctx_.WithCancel();
  EXPECT_MSB_ERROR(PruneAll(2, cancel, ctx), ErrorKind::kCancelled, "cancel");
  EXPECT_THAT(Left(), ElementsAre("s2", "s1"));
  for (const char* name : {"s1", "s2"}) {
    EXPECT_NO_THROW(Snapshot::Flatten(ctx_, name, dir_ / "flat", {}, cow_));
  }
}

TEST_F(PruneTest, ConcurrentCallsRemoveEachSnapshotOnce) {
  MakeSnapshots({"s1", "s2", "s3", "s4", "s5", "s6"});
  std::vector<Names> pruned(3);
  {
    std::vector<std::jthread> threads;
    for (Names& names : pruned) {
      threads.emplace_back([&] { names = NamesOf(Snapshot::Prune(ctx_, {.keep_last = 1}, raw_)); });
    }
  }
  Names all;
  for (const Names& names : pruned) all.insert(all.end(), names.begin(), names.end());
  EXPECT_THAT(all, UnorderedElementsAre("s1", "s2", "s3", "s4", "s5"));
  EXPECT_THAT(Left(), ElementsAre("s6"));
}

}  // namespace
}  // namespace msb::test
