// SPDX-License-Identifier: Apache-2.0

#include "src/base/text.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "msb/error.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

using std::string_view_literals::operator""sv;

TEST(TextTest, TakesEveryLengthOfUtf8) {
  EXPECT_TRUE(IsUtf8(""));
  EXPECT_TRUE(IsUtf8("plain"));
  EXPECT_TRUE(IsUtf8("a\0b"sv));
  EXPECT_TRUE(IsUtf8("\u0080\u07ff"));
  EXPECT_TRUE(IsUtf8("\u0800\ud7ff\ue000\uffff"));
  EXPECT_TRUE(IsUtf8("\U00010000\U0010ffff"));
}

TEST(TextTest, RefusesOverlongForms) {
  EXPECT_FALSE(IsUtf8("\xc0\x80"));
  EXPECT_FALSE(IsUtf8("\xc1\xbf"));
  EXPECT_FALSE(IsUtf8("\xe0\x9f\xbf"));
  EXPECT_FALSE(IsUtf8("\xf0\x8f\xbf\xbf"));
}

TEST(TextTest, RefusesSurrogatesAndCodePointsBeyondUnicode) {
  EXPECT_FALSE(IsUtf8("\xed\xa0\x80"));
  EXPECT_FALSE(IsUtf8("\xed\xbf\xbf"));
  EXPECT_FALSE(IsUtf8("\xf4\x90\x80\x80"));
  EXPECT_FALSE(IsUtf8("\xf5\x80\x80\x80"));
  EXPECT_FALSE(IsUtf8("\xff"));
}

TEST(TextTest, RefusesTruncatedAndStrayBytes) {
  EXPECT_FALSE(IsUtf8("a\xc3"));
  EXPECT_FALSE(IsUtf8("\xe2\x82"));
  EXPECT_FALSE(IsUtf8("\xf0\x9f\x98"));
  EXPECT_FALSE(IsUtf8("\xe2\x28\xa1"));
  EXPECT_FALSE(IsUtf8("\xf0\x9f\x98z"));
  EXPECT_FALSE(IsUtf8("\x80"));
  EXPECT_FALSE(IsUtf8("\u00e9\xbf"));
}

TEST(TextTest, TakesBareNames) {
  EXPECT_NO_THROW(CheckBareName("snapshot", "a", 255));
  EXPECT_NO_THROW(CheckBareName("snapshot", "after-pip_install.v1 (2)", 255));
  EXPECT_NO_THROW(CheckBareName("snapshot", "a..~b", 255));
  EXPECT_NO_THROW(CheckBareName("snapshot", "schl\u00fcssel", 255));
  EXPECT_NO_THROW(CheckBareName("snapshot", std::string(255, 'n'), 255));
}

TEST(TextTest, RefusesNamesThatAreNotBare) {
  for (const std::string_view name :
       {""sv, "a/b"sv, "/"sv, "a\\b"sv, "group:member"sv, "."sv, ".."sv, ".hidden"sv, "~"sv,
        "~root"sv, "a\nb"sv, "a\tb"sv, "a\0b"sv, "a\x1f"sv, "a\x7f"sv, "\xff"sv, "a\xc3"sv}) {
    EXPECT_MSB_ERROR(CheckBareName("snapshot", name, 255), ErrorKind::kInvalidConfig,
                     "snapshot name '", "is invalid: it must ");
  }
}

TEST(TextTest, CountsTheBytesOfANameNotItsCharacters) {
  EXPECT_MSB_ERROR(CheckBareName("sandbox", std::string(129, 'n'), 128), ErrorKind::kInvalidConfig,
                   "sandbox name 'nnn", "not be longer than 128 bytes");
  EXPECT_NO_THROW(CheckBareName("sandbox", "\u00e9\u00e9", 4));
  EXPECT_MSB_ERROR(CheckBareName("sandbox", "\u00e9\u00e9", 3), ErrorKind::kInvalidConfig,
                   "sandbox name '\u00e9\u00e9'", "not be longer than 3 bytes");
}

TEST(TextTest, NamesTheRefusedName) {
  try {
    CheckBareName("sandbox", "bad\nname", 128);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    const std::string message = e.what();
    EXPECT_NE(message.find("sandbox"), std::string::npos) << message;
    EXPECT_NE(message.find("bad\\x0aname"), std::string::npos) << message;
  }
}

TEST(TextTest, NamesTheForbiddenCharacter) {
  try {
    CheckBareName("snapshot", "a/b", 255);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "snapshot name 'a/b' is invalid: it must not contain '/'");
  }
}

TEST(TextTest, CountsInSingularAndPlural) {
  EXPECT_EQ(Count(0, "byte"), "0 bytes");
  EXPECT_EQ(Count(1, "disk layer"), "1 disk layer");
  EXPECT_EQ(Count(2, "reference"), "2 references");
}

TEST(TextTest, RecognizesPlainFileNames) {
  EXPECT_TRUE(IsPlainFileName("upper.ext4"));
  EXPECT_TRUE(IsPlainFileName(".hidden"));
  EXPECT_TRUE(IsPlainFileName("..."));
  EXPECT_TRUE(IsPlainFileName("a\\b"));
  EXPECT_TRUE(IsPlainFileName(std::string(255, 'f')));
  EXPECT_FALSE(IsPlainFileName(std::string(256, 'f')));
  EXPECT_FALSE(IsPlainFileName(""));
  EXPECT_FALSE(IsPlainFileName("."));
  EXPECT_FALSE(IsPlainFileName(".."));
  EXPECT_FALSE(IsPlainFileName("a/b"));
  EXPECT_FALSE(IsPlainFileName("/"));
  EXPECT_FALSE(IsPlainFileName("../upper.ext4"));
  EXPECT_FALSE(IsPlainFileName("a\0b"sv));
}

TEST(TextTest, QuotesSoThatATerminalShowsIt) {
  EXPECT_EQ(Quoted("plain 'text' /"), "plain 'text' /");
  EXPECT_EQ(Quoted("\u00e9\U0001f600"), "\u00e9\U0001f600");
  EXPECT_EQ(Quoted("\x1b[31m"), "\\x1b[31m");
  EXPECT_EQ(Quoted("a\0\n\x7f"sv), "a\\x00\\x0a\\x7f");
  EXPECT_EQ(Quoted("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(Quoted("\xed\xa0\x80"), "\\xed\\xa0\\x80");
  EXPECT_EQ(Quoted(""), "");
}

TEST(TextTest, CutsLongTextsAndShowsThatItDid) {
  const std::string longest(200, 'x');
  EXPECT_EQ(Quoted(longest), longest);
  std::string cut = longest;
  cut += "\u2026";
  EXPECT_EQ(Quoted(longest + "y"), cut);
  EXPECT_LT(Quoted(std::string(1'000'000, '\xff')).size(), 220U);
}

}  // namespace
}  // namespace msb::base
