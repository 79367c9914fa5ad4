// SPDX-License-Identifier: Apache-2.0

#include "src/registry/origins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/support.h"

namespace msb::registry {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

base::Digest Snapshot(int number) {
  return base::Digest::Require(base::Sha256Digest(std::to_string(number)));
}

class OriginsTest : public testing::Test {
 protected:
  Origins Open() {
    return Origins(file_, [this](std::string_view message) { log_.emplace_back(message); });
  }

  const test::TempDir dir_;
  const std::filesystem::path file_ = dir_ / "cache/registries.json";
  std::vector<std::string> log_;
};

TEST_F(OriginsTest, FindsTheRepositoriesOfASnapshotTheLastUsedFirst) {
  EXPECT_THAT(Open().Find("host:5000", Snapshot(1)), IsEmpty());
  Open().Add("host:5000", "team/one", {Snapshot(1), Snapshot(2)});
  Open().Add("host:5000", "team/two", {Snapshot(1)});
  Open().Add("other", "team/three", {Snapshot(1)});
  EXPECT_THAT(Open().Find("host:5000", Snapshot(1)), ElementsAre("team/two", "team/one"));
  EXPECT_THAT(Open().Find("host:5000", Snapshot(2)), ElementsAre("team/one"));
  Open().Add("host:5000", "team/one", {Snapshot(1)});
  EXPECT_THAT(Open().Find("host:5000", Snapshot(1)), ElementsAre("team/one", "team/two"));
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(OriginsTest, KeepsALimitedNumber) {
  std::vector<base::Digest> many;
  for (int i = 0; i < 1100; ++i) many.push_back(Snapshot(i));
  Open().Add("host", "old", {Snapshot(5000)});
  Open().Add("host", "new", many);
  EXPECT_THAT(Open().Find("host", Snapshot(1023)), ElementsAre("new"));
  EXPECT_THAT(Open().Find("host", Snapshot(1024)), IsEmpty());
  EXPECT_THAT(Open().Find("host", Snapshot(5000)), IsEmpty());
}

TEST_F(OriginsTest, AMalformedFileCountsAsEmptyAndIsReplaced) {
  for (const char* text : {"", "{", "[]", R"({"origins":[1]})", R"({"origins":7})",
                           R"({"origins":[{"snapshot":"x","registry":"h","repository":"r"}]})"}) {
    test::WriteFile(file_, text);
    EXPECT_THAT(Open().Find("h", Snapshot(1)), IsEmpty()) << text;
    Open().Add("h", "r", {Snapshot(1)});
    EXPECT_THAT(Open().Find("h", Snapshot(1)), ElementsAre("r")) << text;
  }
}

TEST_F(OriginsTest, LogsAFailureToWrite) {
  std::filesystem::create_directories(file_ / "directory");
  Open().Add("host", "team/one", {Snapshot(1)});
  EXPECT_THAT(log_, ElementsAre(testing::AllOf(testing::HasSubstr("registries.json"),
                                               testing::HasSubstr("later pushes"))));
}

}  // namespace
}  // namespace msb::registry
