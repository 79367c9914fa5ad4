// SPDX-License-Identifier: Apache-2.0

#include "src/handle/row_paths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/artifact/store.h"
#include "tests/support/support.h"

namespace msb::handle {
namespace {

namespace fs = std::filesystem;

class RowPathsTest : public ::testing::Test {
 protected:
  RowPathsTest() { fs::create_directories(home_ / "snapshots"); }

  static index::Row RowOf(const fs::path& artifact) {
    index::Row row;
    row.digest = artifact::ReadManifest(artifact)->digest;
    row.name = artifact.filename();
    row.artifact_path = artifact;
    return row;
  }

  test::TempDir dir_;
  const fs::path home_ = dir_ / "home";
  const base::Home own_{{.home = home_}};
  const HasRow none_ = [](const fs::path&) { return false; };
};

TEST_F(RowPathsTest, ARowThatLeadsElsewhereMeansTheCounterpartInTheHome) {
  const fs::path other = test::UnpackFixtureHome("0.6.18", dir_ / "fixture");
  const index::Row row = RowOf(other / "snapshots/plain");
  // There is no counterpart, and the row leads into another home.
  EXPECT_FALSE(ResolveRow(own_, row, none_));
  fs::copy(other / "snapshots/plain", home_ / "snapshots/plain", fs::copy_options::recursive);
  EXPECT_EQ(ResolveRow(own_, row, none_)->artifact_path, home_ / "snapshots/plain");
  const auto all = [](const fs::path&) { return true; };
  EXPECT_FALSE(ResolveRow(own_, row, all)) << "the counterpart has a row of its own";
  // An artifact with another digest is not a counterpart.
  index::Row changed = row;
  changed.digest = "sha256:" + std::string(64, '0');
  EXPECT_FALSE(ResolveRow(own_, changed, none_));
}

TEST_F(RowPathsTest, ARowOutsideOfAnyHomeStaysAsItIs) {
  index::Row row;
  row.digest = "sha256:" + std::string(64, '0');
  row.name = "a";
  row.artifact_path = dir_ / "elsewhere/a";
  EXPECT_EQ(ResolveRow(own_, row, none_)->artifact_path, row.artifact_path);
  row.artifact_path = home_ / "snapshots/gone";
  EXPECT_EQ(ResolveRow(own_, row, none_)->artifact_path, row.artifact_path);
}

}  // namespace
}  // namespace msb::handle
