// SPDX-License-Identifier: Apache-2.0
//
// Tests homes that several users use: a home that belongs to a group, and a home that root reads.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <stdexcept>

#include "tests/support/mounts.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uid_t kOwner = 23471;
constexpr uid_t kColleague = 23472;
constexpr gid_t kGroup = 23470;

// Uses one home as one user after the other.
class IndexOwnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "root is missing";
    fs::permissions(dir_.path(), fs::perms::all);
    WriteFile(dir_ / "base.img", Noise(1 << 20, 1));
    fs::create_directory(home_);
  }

  // Gives the home to the group, or to the owner alone.
  void MakeHome(bool is_shared) const {
    ASSERT_EQ(chown(home_.c_str(), kOwner, kGroup), 0);
    ASSERT_EQ(chmod(home_.c_str(), is_shared ? 02775 : 0755), 0);
  }

  // Calls use(client) as this user, and returns what it throws or logs.
  template <typename Use>
  std::string As(uid_t user, mode_t mask, const Use& use) const {
    return RunAsUser(user, kGroup, [&] {
      umask(mask);
      std::vector<std::string> log;
      {
        Client client = LocalClient(home_, &log);
        use(client);
      }
      for (const std::string& line : log) throw std::runtime_error(line);
    });
  }

  void Create(Client& client, const std::string& name) const {
    if (ListSandboxes(ctx_, client).empty()) {
      CreateSandbox(ctx_, "a", {WithImage(dir_ / "base.img")}, client).Close();
    }
    Snapshot::Create(ctx_, "a", {.name = name}, client);
  }

  static void Require(bool condition, const std::string& what) {
    if (!condition) throw std::runtime_error(what);
  }

  void ExpectCount(Client& client, std::size_t count) const {
    const std::size_t found = Snapshot::List(ctx_, client).size();
    Require(found == count, "the list has " + std::to_string(found) + " snapshots");
  }

  static uid_t OwnerOf(const fs::path& path) {
    struct stat st;
    return stat(path.c_str(), &st) == 0 ? st.st_uid : static_cast<uid_t>(-1);
  }

  const Context ctx_ = Context::Background();
  TempDir dir_{"/dev/shm"};
  const fs::path home_ = dir_ / "home";
  const fs::path index_ = home_ / "db/snapshots.db";
};

TEST_F(IndexOwnerTest, AGroupSharesTheIndexOfAHomeThatItMayWrite) {
  MakeHome(true);
  EXPECT_EQ(As(kOwner, 0002, [&](Client& client) { Create(client, "s1"); }), "");
  EXPECT_EQ(As(kColleague, 0002, [&](Client& client) { ExpectCount(client, 1); }), "");
  const auto use = [&](Client& client, const std::string& name, std::size_t count) {
    Create(client, name);
    ExpectCount(client, count);
    Require(Snapshot::Reindex(ctx_, "", client) == count, "Reindex");
    Require(Snapshot::Get(ctx_, name, client).Name() == name, "Get");
  };
  EXPECT_EQ(As(kOwner, 0002, [&](Client& client) { use(client, "s2", 2); }), "");
  EXPECT_EQ(As(kColleague, 0002, [&](Client& client) { use(client, "s3", 3); }), "");
  EXPECT_EQ(As(kOwner, 0002, [&](Client& client) { use(client, "s4", 4); }), "");
}

// The group may write the directory but not the database, so that SQLite could create log files.
TEST_F(IndexOwnerTest, AReaderLeavesNoFilesThatTheOwnerCannotWrite) {
  MakeHome(true);
  EXPECT_EQ(As(kOwner, 0022, [&](Client& client) { Create(client, "s1"); }), "");
  ASSERT_EQ(chmod((home_ / "db").c_str(), 02775), 0);
  const auto before = ListTree(home_);
  EXPECT_THAT(As(kColleague, 0022, [&](Client& client) { ExpectCount(client, 1); }),
              AllOf(HasSubstr("cannot be written"), HasSubstr(index_.native()),
                    HasSubstr("belongs to user 23471")));
  EXPECT_EQ(ListTree(home_), before);
  EXPECT_EQ(As(kOwner, 0022,
               [&](Client& client) {
                 Create(client, "s2");
                 ExpectCount(client, 2);
               }),
            "");
}

TEST_F(IndexOwnerTest, LogFilesOfAnotherUserAreSetAsideWithTheIndex) {
  MakeHome(true);
  EXPECT_EQ(As(kOwner, 0022, [&](Client& client) { Create(client, "s1"); }), "");
  const fs::path log = index_.native() + "-shm";
  WriteFile(log, "");
  ASSERT_EQ(chown(log.c_str(), kColleague, kGroup), 0);
  ASSERT_EQ(chmod(log.c_str(), 0644), 0);
  EXPECT_THAT(As(kOwner, 0022, [&](Client& client) { Create(client, "s2"); }),
              AllOf(HasSubstr("set aside"), HasSubstr(log.native())));
  EXPECT_EQ(As(kOwner, 0022, [&](Client& client) { ExpectCount(client, 2); }), "");
}

TEST_F(IndexOwnerTest, ListingAHomeOfAnotherUserCreatesNoIndexInIt) {
  MakeHome(true);
  EXPECT_EQ(As(kOwner, 0022, [&](Client& client) { Create(client, "s1"); }), "");
  fs::remove_all(home_ / "db");
  EXPECT_EQ(As(kColleague, 0022, [&](Client& client) { ExpectCount(client, 1); }), "");
  EXPECT_EQ(As(0, 0022, [&](Client& client) { ExpectCount(client, 1); }), "");
  EXPECT_FALSE(fs::exists(home_ / "db"));
  EXPECT_EQ(As(kOwner, 0022, [&](Client& client) { ExpectCount(client, 1); }), "");
  EXPECT_TRUE(fs::exists(index_));
}

TEST_F(IndexOwnerTest, AnIndexThatRootCreatesBelongsToTheOwnerOfTheHome) {
  MakeHome(false);
  EXPECT_EQ(As(0, 0022, [&](Client& client) { Snapshot::Reindex(ctx_, "", client); }), "");
  EXPECT_EQ(OwnerOf(home_ / "db"), kOwner);
  EXPECT_EQ(OwnerOf(index_), kOwner);
  EXPECT_EQ(As(kOwner, 0022,
               [&](Client& client) {
                 Create(client, "s1");
                 ExpectCount(client, 1);
               }),
            "");
}

TEST_F(IndexOwnerTest, DirectoriesThatRootCreatesBelongToTheOwnerOfTheHome) {
  MakeHome(false);
  EXPECT_EQ(As(0, 0022, [&](Client& client) { Create(client, "of-root"); }), "");
  for (const char* name : {"cache", "sandboxes", "snapshots"}) {
    EXPECT_EQ(OwnerOf(home_ / name), kOwner) << name;
  }
  EXPECT_EQ(As(kOwner, 0022,
               [&](Client& client) {
                 CreateSandbox(ctx_, "b", {WithImage(dir_ / "base.img")}, client).Close();
                 Snapshot::Create(ctx_, "b", {.name = "of-owner"}, client);
                 ExpectCount(client, 2);
                 Snapshot::Remove(ctx_, "of-owner", false, client);
               }),
            "");
}

TEST(AbsentHomeTest, ReadingDoesNotCreateAHome) {
  const Context ctx = Context::Background();
  const TempDir dir;
  const fs::path home = dir / "typo";
  std::vector<std::string> log;
  Client client = LocalClient(home, &log);
  EXPECT_TRUE(Snapshot::List(ctx, client).empty());
  EXPECT_MSB_ERROR(Snapshot::Get(ctx, "a", client), ErrorKind::kSnapshotNotFound, "'a'",
                   home.native());
  EXPECT_MSB_ERROR(Snapshot::Remove(ctx, "a", false, client), ErrorKind::kSnapshotNotFound, "'a'",
                   home.native());
  EXPECT_FALSE(fs::exists(home));
  EXPECT_TRUE(log.empty());
}

}  // namespace
}  // namespace msb::test
