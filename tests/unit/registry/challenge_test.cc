// SPDX-License-Identifier: Apache-2.0

#include "src/registry/challenge.h"

#include <gtest/gtest.h>

namespace msb::registry {
namespace {

TEST(ChallengeTest, ParsesWhatRegistriesSend) {
  const auto challenges = ParseChallenges(
      R"(Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push")");
  ASSERT_EQ(challenges.size(), 1U);
  EXPECT_EQ(challenges[0].scheme, "bearer");
  EXPECT_EQ(challenges[0].Parameter("realm"), "https://auth.example/token");
  EXPECT_EQ(challenges[0].Parameter("service"), "r.example");
  EXPECT_EQ(challenges[0].Parameter("scope"), "repository:a/b:pull,push");
  EXPECT_EQ(challenges[0].Parameter("error"), "");
}

TEST(ChallengeTest, ParsesSeveralChallengesInOneHeader) {
  const auto challenges = ParseChallenges(
      R"(Negotiate, BASIC Realm = "a, \"b\" \\ c" , charset=UTF-8,Bearer realm=x, service="")");
  ASSERT_EQ(challenges.size(), 3U);
  EXPECT_EQ(challenges[0].scheme, "negotiate");
  EXPECT_TRUE(challenges[0].parameters.empty());
  EXPECT_EQ(challenges[1].scheme, "basic");
  EXPECT_EQ(challenges[1].Parameter("realm"), R"(a, "b" \ c)");
  EXPECT_EQ(challenges[1].Parameter("charset"), "UTF-8");
  EXPECT_EQ(challenges[2].scheme, "bearer");
  EXPECT_EQ(challenges[2].Parameter("realm"), "x");
  EXPECT_EQ(challenges[2].Parameter("service"), "");
}

TEST(ChallengeTest, TheFirstOfTwoValuesCounts) {
  const auto challenges = ParseChallenges(R"(Bearer realm="one",realm="two")");
  ASSERT_EQ(challenges.size(), 1U);
  EXPECT_EQ(challenges[0].Parameter("realm"), "one");
}

TEST(ChallengeTest, SkipsWhatItDoesNotUnderstand) {
  EXPECT_TRUE(ParseChallenges("").empty());
  EXPECT_TRUE(ParseChallenges(" ,\t, ").empty());
  EXPECT_TRUE(ParseChallenges("realm=\"x\"").empty()) << "a parameter without a scheme";
  EXPECT_TRUE(ParseChallenges("\"\\").empty());
  const auto token68 = ParseChallenges("Negotiate YWJj==, Basic realm=x");
  ASSERT_EQ(token68.size(), 2U);
  EXPECT_EQ(token68[1].Parameter("realm"), "x");
  const auto open = ParseChallenges(R"(Bearer realm="x", service="never closed)");
  ASSERT_EQ(open.size(), 1U);
  EXPECT_EQ(open[0].Parameter("realm"), "x");
  EXPECT_EQ(open[0].Parameter("service"), "");
  const auto garbage = ParseChallenges("\x01\xff(@), Basic realm=\"\"");
  ASSERT_EQ(garbage.size(), 1U);
  EXPECT_EQ(garbage[0].scheme, "basic");
}

TEST(ChallengeTest, EndsForEveryShortHeader) {
  // All texts of up to five of these characters: the parser must neither loop nor read too far.
  constexpr std::string_view kCharacters = "aB=\"\\, ";
  std::size_t parsed = 0;
  std::string text;
  const auto extend = [&](const auto& self) -> void {
    ++parsed;
    EXPECT_LE(ParseChallenges(text).size(), text.size()) << text;
    if (text.size() == 5) return;
    for (const char c : kCharacters) {
      text += c;
      self(self);
      text.pop_back();
    }
  };
  extend(extend);
  EXPECT_EQ(parsed, 19608U);
}

}  // namespace
}  // namespace msb::registry
