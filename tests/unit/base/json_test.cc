// SPDX-License-Identifier: Apache-2.0

#include "src/base/json.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace msb::base {
namespace {

std::string Canonical(std::string_view text) {
  std::string out;
  AppendCanonicalJson(out, ParseJson(text));
  return out;
}

std::string JsonString(std::string_view text) {
  std::string out;
  AppendJsonString(out, text);
  return out;
}

std::string Nested(std::size_t depth, char open, char close) {
  return std::string(depth, open) + std::string(depth, close);
}

// {"a":{"a":…0…}}
std::string NestedObjects(std::size_t depth) {
  std::string text;
  for (std::size_t i = 0; i < depth; ++i) text += R"({"a":)";
  return text + "0" + std::string(depth, '}');
}

// Returns the message with which ParseJson refuses text, or an empty string if it accepts it.
std::string Refusal(std::string_view text) {
  try {
    ParseJson(text);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "";
}

TEST(JsonTest, ReadsEveryKindOfValue) {
  const Json value = ParseJson(R"({"a":[1,-2,1.5,true,false,null,"x\u00e9\n"],"b":{}})");
  EXPECT_EQ(value["a"][0], 1);
  EXPECT_EQ(value["a"][1], -2);
  EXPECT_EQ(value["a"][2], 1.5);
  EXPECT_EQ(value["a"][3], true);
  EXPECT_EQ(value["a"][4], false);
  EXPECT_TRUE(value["a"][5].is_null());
  EXPECT_EQ(value["a"][6], "x\u00e9\n");
  EXPECT_TRUE(value["b"].is_object());
  EXPECT_TRUE(value["b"].empty());
}

TEST(JsonTest, RefusesAKeyThatAnObjectHasTwiceAtAnyDepth) {
  EXPECT_NE(Refusal(R"({"key":1,"key":1})").find("key"), std::string::npos);
  EXPECT_NE(Refusal(R"({"a":{"b":1,"c":{"d":1,"d":2}}})"), "");
  EXPECT_NE(Refusal(R"([[{"a":1},{"b":1,"c":2,"b":3}]])"), "");
  EXPECT_NE(Refusal(R"({"a":{"x":1},"b":2,"a":[]})"), "");
  // The same key, spelled with an escape.
  EXPECT_NE(Refusal(R"({"a":1,"\u0061":2})"), "");
}

TEST(JsonTest, TakesTheSameKeyInDifferentObjects) {
  EXPECT_EQ(Canonical(R"({"a":{"a":[{"a":1},{"a":2}]}})"), R"({"a":{"a":[{"a":1},{"a":2}]}})");
}

TEST(JsonTest, Takes127LevelsAndNoMore) {
  EXPECT_EQ(Canonical(Nested(127, '[', ']')), Nested(127, '[', ']'));
  EXPECT_EQ(Canonical(NestedObjects(127)), NestedObjects(127));
  for (const std::size_t depth : {128U, 1000U, 1'000'000U}) {
    EXPECT_NE(Refusal(Nested(depth, '[', ']')), "") << depth;
    EXPECT_NE(Refusal(NestedObjects(depth)), "") << depth;
    EXPECT_NE(Refusal(std::string(depth, '[')), "") << depth;
  }
}

TEST(JsonTest, CountsOpenLevelsAndNotAllThereAre) {
  std::string many = "[";
  for (int i = 0; i < 1000; ++i) many += "[{}],";
  many += "0]";
  EXPECT_EQ(ParseJson(many).size(), 1001U);
}

TEST(JsonTest, RefusesInvalidUtf8) {
  EXPECT_NE(Refusal("\"\xff\""), "");
  EXPECT_NE(Refusal("\"\xc0\xaf\""), "");          // Overlong.
  EXPECT_NE(Refusal("\"\xed\xa0\x80\""), "");      // A surrogate.
  EXPECT_NE(Refusal("\"\xf4\x90\x80\x80\""), "");  // Beyond U+10FFFF.
  EXPECT_NE(Refusal("{\"\xe2\x82\":1}"), "");
  EXPECT_NE(Refusal(R"("\ud800")"), "");
}

TEST(JsonTest, RefusesAByteOrderMark) {
  EXPECT_NE(Refusal("\xef\xbb\xbf{}"), "");
  EXPECT_NE(Refusal("\xff\xfe{}"), "");
  EXPECT_EQ(Canonical("\"\xef\xbb\xbf\""), "\"\xef\xbb\xbf\"");
}

TEST(JsonTest, RefusesBytesAfterTheDocument) {
  EXPECT_NE(Refusal("{}x"), "");
  EXPECT_NE(Refusal("{}{}"), "");
  EXPECT_NE(Refusal("{},"), "");
  EXPECT_NE(Refusal("{}]"), "");
  EXPECT_NE(Refusal("1 2"), "");
}

TEST(JsonTest, RefusesANulByte) {
  using std::string_view_literals::operator""sv;
  EXPECT_NE(Refusal("{}\0"sv), "");
  EXPECT_NE(Refusal("{}\0junk"sv), "");
  EXPECT_NE(Refusal("\0{}"sv), "");
  EXPECT_NE(Refusal("\"a\0b\""sv), "");
}

TEST(JsonTest, TakesWhiteSpaceAroundTheDocument) {
  EXPECT_EQ(Canonical(" \t\r\n{ \"a\" : [ 1 , 2 ] } \t\r\n"), R"({"a":[1,2]})");
  EXPECT_NE(Refusal("{}\f"), "");
  EXPECT_NE(Refusal("{}\xc2\xa0"), "");
}

TEST(JsonTest, RefusesIncompleteDocuments) {
  for (const char* text : {"",      " ",           "\n",       "{",       "[1,",
                           "[1,]",  R"({"a":1,})", R"({"a"})", "{a:1}",   "'a'",
                           "\"a",   "nul",         "True",     "NaN",     "Infinity",
                           "01",    "+1",          "1.",       ".5",      "1e",
                           "0x1",   "-",           "\"\n\"",   R"("\x")", "// comment\n{}",
                           "/**/{}"}) {
    EXPECT_NE(Refusal(text), "") << text;
  }
}

TEST(JsonTest, RefusesANumberThatNoDoubleCanHold) {
  EXPECT_NE(Refusal("1e400"), "");
  EXPECT_NE(Refusal("-1e400"), "");
}

TEST(JsonTest, EscapesQuotesBackslashesAndControlCharactersOnly) {
  EXPECT_EQ(JsonString(""), R"("")");
  EXPECT_EQ(JsonString("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(JsonString("\b\t\n\f\r"), R"("\b\t\n\f\r")");
  EXPECT_EQ(JsonString(std::string_view("\0\x01\x0b\x1b\x1f", 5)),
            R"("\u0000\u0001\u000b\u001b\u001f")");
}

TEST(JsonTest, EscapesEachControlCharacterSoThatItReadsBack) {
  for (char c = 0; c < 0x20; ++c) {
    const std::string text = {'x', c, 'y'};
    const std::string written = JsonString(text);
    EXPECT_EQ(written.find(c), std::string::npos) << static_cast<int>(c);
    EXPECT_EQ(ParseJson(written).get<std::string>(), text) << static_cast<int>(c);
  }
}

TEST(JsonTest, LeavesAllOtherCharactersRaw) {
  for (const char* text : {"/", " ", "\x7f", "\u0080", "\u00e9", "\u2028\u2029", "\U0001f600",
                           "<>&'", "\ufeff", "\uffff", "\U0010ffff"}) {
    EXPECT_EQ(JsonString(text), '"' + std::string(text) + '"');
  }
}

TEST(JsonTest, WritesEscapedTextInItsOneCanonicalForm) {
  EXPECT_EQ(Canonical(R"("\u0041\/\u007f\u2028\u001F\u000a\uD83D\uDE00")"),
            "\"A/\x7f\u2028\\u001f\\n\U0001f600\"");
}

TEST(JsonTest, AppendsToExistingText) {
  std::string out = "x";
  AppendJsonString(out, "a");
  AppendJsonOptional(out, std::nullopt);
  AppendJsonOptional(out, "b\n");
  AppendJsonOptional(out, "");
  AppendJsonObject(out, {});
  AppendJsonObject(out, {{"z", "1"}, {"a\"", "2\t"}});
  AppendCanonicalJson(out, Json::array());
  EXPECT_EQ(out, R"(x"a"null"b\n"""{}{"a\"":"2\t","z":"1"}[])");
}

// Each second value is what the released runtimes write for the first.
TEST(JsonTest, WritesNumbersAsTheRuntimesDo) {
  const std::vector<std::pair<std::string, std::string>> measured = {
      {"1e15", "1000000000000000.0"},
      {"1e16", "1e+16"},
      {"123456789012345680.0", "1.2345678901234568e+17"},
      {"1e-4", "0.0001"},
      {"1e-5", "0.00001"},
      {"1e-6", "1e-6"},
      {"1.5e-7", "1.5e-7"},
      {"1.25e20", "1.25e+20"},
      {"1e300", "1e+300"},
      {"5e-324", "5e-324"},
      {"0.0", "0.0"},
      {"-0.0", "-0.0"},
      {"-0", "-0.0"},
      {"-1.5", "-1.5"},
      {"1E5", "100000.0"},
      {"18446744073709551615", "18446744073709551615"},
      {"18446744073709551616", "1.8446744073709552e+19"},
  };
  for (const auto& [text, canonical] : measured) {
    EXPECT_EQ(Canonical(text), canonical);
    EXPECT_EQ(Canonical(R"({"a":[)" + text + "]}"), R"({"a":[)" + canonical + "]}");
  }
}

TEST(JsonTest, KeepsIntegersAsTheyAre) {
  for (const char* text : {"0", "1", "-1", "9223372036854775807", "9223372036854775808",
                           "-9223372036854775808", "9007199254740993"}) {
    EXPECT_EQ(Canonical(text), text);
  }
}

TEST(JsonTest, WritesFloatsThatReadBackTheSame) {
  for (const char* text :
       {"0.1", "0.30000000000000004", "9007199254740993.0", "9.999999999999999e15",
        "2.2250738585072014e-308", "1.7976931348623157e308", "-3.5e-9"}) {
    const std::string canonical = Canonical(text);
    EXPECT_EQ(ParseJson(canonical).get<double>(), ParseJson(text).get<double>()) << text;
    EXPECT_EQ(Canonical(canonical), canonical) << text;
  }
}

TEST(JsonTest, SortsKeysByTheirBytesAtEveryDepth) {
  EXPECT_EQ(Canonical(R"({"b":[{"z":1,"y":{"d":1,"c":2}}],"a":{"k":0,"j":0},"":0,"B":1})"),
            R"({"":0,"B":1,"a":{"j":0,"k":0},"b":[{"y":{"c":2,"d":1},"z":1}]})");
  EXPECT_EQ(Canonical("{\"\u00e9\":1,\"z\":2,\"ab\":3,\"a\":4}"),
            "{\"a\":4,\"ab\":3,\"z\":2,\"\u00e9\":1}");
}

TEST(JsonTest, KeepsTheOrderOfArrays) {
  EXPECT_EQ(Canonical("[3, 1, [2, 0], null, true, false]"), "[3,1,[2,0],null,true,false]");
}

}  // namespace
}  // namespace msb::base
