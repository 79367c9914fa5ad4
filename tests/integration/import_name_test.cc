// SPDX-License-Identifier: Apache-2.0
//
// The directory and the name that an imported snapshot gets, and what is used of an archive if the
// home has a part of it already.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/import_home.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::HasSubstr;

class ImportNameTest : public ImportHome {
 protected:
  SnapshotHandle ImportAs(const SampleArchive& archive, const std::string& name,
                          const std::string& dest = "") {
    return Snapshot::Import(ctx_, Stored(archive.Tar()), dest, {.name = name}, client_);
  }

  void ExpectAlreadyExists(const SampleArchive& archive, const std::string& path,
                           const std::string& name = "") {
    // Without the index, which changes when it is read.
    const auto list = [this] {
      return std::vector{ListTree(home_ / "snapshots"), ListTree(dest_), ListTree(home_ / "cache")};
    };
    const auto before = list();
    try {
      ImportAs(archive, name);
      ADD_FAILURE() << "imported";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kSnapshotAlreadyExists) << e.what();
      EXPECT_THAT(e.what(), HasSubstr(path));
    }
    EXPECT_EQ(list(), before);
  }
};

TEST_F(ImportNameTest, ImportGivesTheHeadTheNameInItsOptions) {
  for (const SampleLayout layout : kSampleLayouts) {
    const std::string name = "imported" + std::to_string(static_cast<int>(layout));
    const SampleArchive chain = MakeSampleChain(layout);
    const SnapshotHandle handle = ImportAs(chain, name);
    ExpectSound(handle, chain.snapshots[1]);
    EXPECT_EQ(handle.Name(), name);
    EXPECT_EQ(handle.Path(), home_ / "snapshots" / name);
    ExpectSound(Snapshot::Get(ctx_, name, client_), chain.snapshots[1]);
    EXPECT_EQ(Snapshot::Open(ctx_, name, client_).Digest(), chain.snapshots[1].digest);
    // The parents keep the names that the releases give them.
    const fs::path parent = Snapshot::Get(ctx_, chain.snapshots[0].digest, client_).Path();
    EXPECT_THAT(chain.entries[0].name, HasSubstr(parent.filename().native()));
  }
}

TEST_F(ImportNameTest, ImportTakesItsOptionsAfterTheClientToo) {
  const SampleArchive archive = MakeSampleArchive(SampleLayout::kInventory);
  const auto handle =
      Snapshot::Import(ctx_, Stored(archive.Tar()), "", client_, {.name = "imported"});
  EXPECT_EQ(handle.Name(), "imported");
}

// The releases ignore the suggested name, too.
TEST_F(ImportNameTest, ImportTakesAConstClientBeforeAndAfterItsOptions) {
  const Client client = client_;
  const auto first = MakeSampleArchive(SampleLayout::kLegacy).Tar();
  const auto second = MakeSampleArchive(SampleLayout::kInventory).Tar();
  EXPECT_EQ(Snapshot::Import(ctx_, Stored(first), "", {.name = "first"}, client).Name(), "first");
  EXPECT_EQ(Snapshot::Import(ctx_, Stored(second), "", client, {.name = "second"}).Name(),
            "second");
  // With the default client, {} stands for the options, too. Only compiled, because the default
  // client does not have a home of this test.
  [[maybe_unused]] const auto with_default_client = [&] { Snapshot::Import(ctx_, "x", "", {}); };
}

TEST_F(ImportNameTest, ImportIgnoresTheSuggestedName) {
  const SampleArchive archive = MakeSampleArchive(SampleLayout::kInventory);
  Json inventory = archive.Inventory();
  inventory["suggested_name"] = "suggested";
  const SnapshotHandle handle = Import(archive.TarWith(inventory));
  EXPECT_EQ(handle.Name(), archive.snapshots[0].digest.substr(7));
  EXPECT_EQ(Snapshot::Open(ctx_, *handle.Name(), client_).Digest(), handle.Digest());
}

TEST_F(ImportNameTest, ImportRefusesANameThatIsTakenOrInvalid) {
  const SampleArchive archive = MakeSampleArchive(SampleLayout::kInventory);
  ExpectAlreadyExists(archive, "snapshots/s", "s");
  fs::create_directories(home_ / "snapshots/mine");
  ExpectAlreadyExists(archive, "snapshots/mine", "mine");
  const SampleArchive chain = MakeSampleChain(SampleLayout::kInventory);
  const std::string parent = chain.snapshots[0].digest.substr(7);
  ExpectAlreadyExists(chain, parent, parent);
  for (const std::string& name :
       std::vector<std::string>{"a/b", "..", ".hidden", "~x", "a:b", std::string(256, 'x')}) {
    SCOPED_TRACE(name);
    EXPECT_MSB_ERROR(ImportAs(archive, name), ErrorKind::kInvalidConfig, "snapshot name '",
                     "is invalid: it must not ");
  }
}

TEST_F(ImportNameTest, ImportRefusesASnapshotThatTheHomeHas) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    const std::string name = "imported" + std::to_string(static_cast<int>(layout));
    const SampleArchive archive = MakeSampleArchive(layout);
    ImportAs(archive, name);
    const std::string path = home_ / "snapshots" / name;
    ExpectAlreadyExists(archive, path);
    ExpectAlreadyExists(archive, path, "other");
    // The same holds if only the artifact is left, and the index was rebuilt from it.
    fs::remove_all(home_ / "db");
    client_ = LocalClient(home_, &log_);
    std::ignore = Snapshot::List(ctx_, client_);
    ExpectAlreadyExists(archive, path);
  }
}

TEST_F(ImportNameTest, ImportRefusesASnapshotThatIsIndexedElsewhere) {
  const SampleArchive archive = MakeSampleArchive(SampleLayout::kInventory);
  const auto handle = ImportAs(archive, "elsewhere", dest_);
  EXPECT_EQ(handle.Path(), dest_ / "elsewhere");
  ExpectAlreadyExists(archive, dest_ / "elsewhere");
  // A snapshot that is gone does not count.
  fs::remove_all(dest_ / "elsewhere");
  ExpectSound(Import(archive.Tar()), archive.snapshots[0]);
}

TEST_F(ImportNameTest, ImportCopiesToAnExplicitDestination) {
  const SampleArchive chain = MakeSampleChain(SampleLayout::kInventory);
  Import(chain.Tar());
  ExpectSound(Import(chain.Tar(), dest_), chain.snapshots[1]);
  EXPECT_EQ(Snapshot::ListDir(ctx_, dest_, client_).size(), 2U);
  ExpectRefused(chain.Tar(), ErrorKind::kSnapshotAlreadyExists, dest_);
}

TEST_F(ImportNameTest, ImportUsesTheParentsThatTheHomeHas) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const std::string name : {"", "parent"}) {
      SCOPED_TRACE(std::to_string(static_cast<int>(layout)) + name);
      fs::remove_all(home_);
      client_ = LocalClient(home_, &log_);
      const SampleArchive chain = MakeSampleChain(layout);
      const SnapshotHandle parent = ImportAs(MakeSampleArchive({chain.snapshots[0]}), name);
      const auto before = ListTree(parent.Path());
      ExpectSound(Import(chain.Tar()), chain.snapshots[1]);
      EXPECT_EQ(Snapshot::List(ctx_, client_).size(), 2U);
      EXPECT_EQ(Snapshot::Get(ctx_, chain.snapshots[0].digest, client_).Path(), parent.Path());
      EXPECT_EQ(ListTree(parent.Path()), before);
    }
  }
}

TEST_F(ImportNameTest, ImportRefusesToReplaceADamagedParent) {
  const SampleArchive chain = MakeSampleChain(SampleLayout::kInventory);
  const SnapshotHandle parent = Import(MakeSampleArchive({chain.snapshots[0]}).Tar());
  fs::remove(UpperIn(parent.Path()));
  ExpectAlreadyExists(chain, parent.Path());
}

}  // namespace
}  // namespace msb::test
