// SPDX-License-Identifier: Apache-2.0

#include "src/registry/origins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "src/base/digest.h"
#include "tests/support/support.h"

namespace msb::registry {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string Digest(int number) { return base::Sha256Digest(std::to_string(number)); }

class OriginsTest : public testing::Test {
 protected:
  Origins Open() {
    return Origins(file_, [this](std::string_view message) { log_.emplace_back(message); });
  }

  const test::TempDir dir_;
  const std::filesystem::path file_ = dir_ / "cache/registries.json";
  std::vector<std::string> log_;
};

TEST_F(OriginsTest, FindsTheManifestsOfAnObjectTheLastUsedFirst) {
  EXPECT_THAT(Open().Find("host:5000", Digest(1)), IsEmpty());
  Open().Add("host:5000", "team/one", {{Digest(1), Digest(11)}, {"disks/x.raw", Digest(12)}});
  Open().Add("host:5000", "team/two", {{Digest(1), Digest(21)}});
  Open().Add("other", "team/three", {{Digest(1), Digest(31)}});
  const Origin one{"team/one", Digest(11)};
  const Origin two{"team/two", Digest(21)};
  EXPECT_THAT(Open().Find("host:5000", Digest(1)), ElementsAre(two, one));
  EXPECT_THAT(Open().Find("host:5000", "disks/x.raw"), ElementsAre(Origin{"team/one", Digest(12)}));
  Open().Add("host:5000", "team/one", {{Digest(1), Digest(11)}});
  EXPECT_THAT(Open().Find("host:5000", Digest(1)), ElementsAre(one, two));
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(OriginsTest, KeepsTheLastManifestOfAnObjectInARepository) {
  Open().Add("host", "team/one", {{Digest(1), Digest(11)}});
  Open().Add("host", "team/one", {{Digest(1), Digest(12)}});
  EXPECT_THAT(Open().Find("host", Digest(1)), ElementsAre(Origin{"team/one", Digest(12)}));
}

TEST_F(OriginsTest, KeepsALimitedNumber) {
  std::vector<Transferred> many;
  for (int i = 0; i < 1100; ++i) many.push_back({Digest(i), Digest(0)});
  Open().Add("host", "old", {{Digest(5000), Digest(0)}});
  Open().Add("host", "new", many);
  EXPECT_THAT(Open().Find("host", Digest(1023)), ElementsAre(Origin{"new", Digest(0)}));
  EXPECT_THAT(Open().Find("host", Digest(1024)), IsEmpty());
  EXPECT_THAT(Open().Find("host", Digest(5000)), IsEmpty());
}

TEST_F(OriginsTest, AMalformedFileCountsAsEmptyAndIsReplaced) {
  for (const char* text :
       {"", "{", "[]", R"({"origins":[1]})", R"({"origins":7})",
        R"({"origins":[{"object":"x","registry":"h","repository":"r","manifest":"x"}]})"}) {
    test::WriteFile(file_, text);
    EXPECT_THAT(Open().Find("h", "x"), IsEmpty()) << text;
    Open().Add("h", "r", {{"x", Digest(1)}});
    EXPECT_THAT(Open().Find("h", "x"), ElementsAre(Origin{"r", Digest(1)})) << text;
  }
}

TEST_F(OriginsTest, LogsAFailureToWrite) {
  std::filesystem::create_directories(file_ / "directory");
  Open().Add("host", "team/one", {{Digest(1), Digest(2)}});
  EXPECT_THAT(log_, ElementsAre(testing::AllOf(testing::HasSubstr("registries.json"),
                                               testing::HasSubstr("later pushes"))));
}

}  // namespace
}  // namespace msb::registry
