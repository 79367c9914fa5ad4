// SPDX-License-Identifier: Apache-2.0
//
// Text that comes from others cannot control the terminal.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/program/program_home.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Sets the title of a terminal, in two ways, and begins a line of its own.
const std::string kTitle = "\x1b]0;owned\x07";
const std::string kC1 =
    "\xc2\x9d"
    "0;owned\xc2\x9c";
const std::string kHostile = kTitle + kC1 + "\nroot#\r";

class HostileTextTest : public ProgramTest {
 protected:
  // Runs the program, and expects it to print line feeds only at the ends of its own lines, and no
  // other control characters. Returns what it printed.
  std::string Printed(const Arguments& arguments) {
    const ProcessResult result = Run(arguments);
    const std::string text = result.out + result.err;
    const bool clean = std::ranges::none_of(text, [](char c) {
      const auto byte = static_cast<unsigned char>(c);
      return (byte < 0x20 && c != '\n') || byte == 0x7f;
    });
    EXPECT_TRUE(clean) << arguments[0];
    EXPECT_EQ(text.find("\xc2\x9d"), std::string::npos) << arguments[0];
    EXPECT_EQ(text.find("\nroot#"), std::string::npos) << arguments[0];
    return text;
  }
};

TEST_F(HostileTextTest, LabelsAndImagesAreEscaped) {
  const std::string image = "img" + kTitle + kC1 + "\nroot#";
  MakeSparseFile(dir_ / image, 1 << 20, {});
  Output({"sandbox", "create", "base", "--image", dir_ / image, "-q"});
  MakeSnapshot("clean", {"--label", "key" + kHostile + "=value" + kHostile, "-q"});
  EXPECT_THAT(Printed({"inspect", "clean"}), HasSubstr("key\\x1b]0;owned\\x07\\xc2\\x9d0;owned"));
  EXPECT_THAT(Printed({"list"}), HasSubstr("img\\x1b]0;owned"));
  EXPECT_EQ(Document("inspect", {"inspect", "clean"})["labels"]["key" + kHostile],
            "value" + kHostile);
  Printed({"inspect", "clean", "--json"});
  Printed({"list", "--json"});
  Printed({"tree"});
}

TEST_F(HostileTextTest, PathsAreEscaped) {
  MakeSandbox("base");
  const std::string place = dir_ / ("dir" + kHostile);
  EXPECT_THAT(Printed({"create", "--path", place, "--from", "base"}), HasSubstr("dir\\x1b]0;"));
  EXPECT_THAT(Printed({"verify", place}), HasSubstr("dir\\x1b]0;"));
  EXPECT_THAT(Printed({"inspect", place}), HasSubstr("dir\\x1b]0;"));
  EXPECT_THAT(Printed({"list"}), HasSubstr("dir\\x1b]0;"));
  EXPECT_THAT(Printed({"tree"}), HasSubstr("dir\\x1b]0;"));
  EXPECT_THAT(Printed({"reindex", dir_ / ("other" + kHostile)}), HasSubstr("other\\x1b]0;"));
  EXPECT_THAT(Printed({"export", place, dir_ / ("out" + kHostile)}), HasSubstr("out\\x1b]0;"));
  EXPECT_THAT(Printed({"doctor", "--home", dir_ / ("home" + kHostile)}), HasSubstr("home\\x1b]0;"));
  EXPECT_THAT(Printed({"list", "--home", dir_ / ("home" + kHostile)}), HasSubstr("home\\x1b]0;"));
}

TEST_F(HostileTextTest, ErrorsAreEscaped) {
  MakeSandbox("base");
  for (const Arguments& arguments : std::vector<Arguments>{{"inspect", kHostile},
                                                           {"inspect", "./" + kHostile},
                                                           {"verify", kHostile, "./" + kHostile},
                                                           {"rm", kHostile},
                                                           {"import", kHostile},
                                                           {"sandbox", "rm", kHostile},
                                                           {"create", kHostile, "--from", "base"},
                                                           {"create", "x", "--from", kHostile},
                                                           {"list", "--backend", kHostile},
                                                           {"list", kHostile},
                                                           {kHostile},
                                                           {"--" + kHostile}}) {
    const std::string printed = Printed(arguments);
    EXPECT_THAT(printed, HasSubstr("error: "));
    EXPECT_THAT(printed, HasSubstr("\\x1b]0;owned"));
  }
}

TEST_F(HostileTextTest, JsonIsValidWhateverAPathIs) {
  MakeSandbox("base");
  const std::string place = dir_ / "bytes\xff\x9b";
  const auto document = Document("create", {"create", "--path", place, "--from", "base"});
  EXPECT_THAT(document["artifact_path"].get<std::string>(), HasSubstr("bytes\xef\xbf\xbd"));
  Document("list", {"list"});
  Document("tree", {"tree"});
  EXPECT_THAT(Printed({"list"}), HasSubstr("bytes\\xff\\x9b"));
  EXPECT_EQ(Document("error", {"import", dir_ / "absent\xff"}, kIoCode)["error"]["kind"], "IO");
}

}  // namespace
}  // namespace msb::test
