// SPDX-License-Identifier: Apache-2.0

#include "src/registry/token.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace msb::registry {
namespace {

using std::chrono::seconds;

TEST(TokenTest, ParsesBothNamesOfTheToken) {
  EXPECT_EQ(ParseGrant(R"({"token":"abc"})").token, "abc");
  EXPECT_EQ(ParseGrant(R"({"access_token":"abc","token_type":"Bearer"})").token, "abc");
  EXPECT_EQ(ParseGrant(R"({"token":"abc","access_token":"abc"})").token, "abc");
  EXPECT_EQ(ParseGrant(R"({"token":null,"access_token":"abc"})").token, "abc");
}

TEST(TokenTest, LimitsTheLifetime) {
  const auto lifetime = [](const std::string& value) {
    return ParseGrant(R"({"token":"abc","expires_in":)" + value + "}").lifetime;
  };
  EXPECT_EQ(lifetime("300"), seconds(300));
  EXPECT_EQ(lifetime("300.7"), seconds(300));
  EXPECT_EQ(lifetime("3600"), seconds(3600));
  for (const char* value : {"3601", "99999999999999999999999", "1e300", "18446744073709551615"}) {
    EXPECT_EQ(lifetime(value), seconds(3600)) << value;
  }
  for (const char* value : {"0", "1", "-5", "-1e300", "null", "\"300\"", "[]", "{}", "true"}) {
    EXPECT_EQ(lifetime(value), seconds(60)) << value;
  }
  EXPECT_EQ(ParseGrant(R"({"token":"abc"})").lifetime, seconds(60));
}

TEST(TokenTest, RefusesMalformedAnswersWithoutQuotingFromThem) {
  for (const std::string json :
       {"", "secret", R"({"token":"secret)", R"(["secret"])", R"({"secret":1})", R"({"token":""})",
        R"({"token":["secret"]})", R"({"token":"secret\r\nHost: evil"})", R"({"token":"sec ret"})",
        R"({"token":"secretä"})"}) {
    try {
      ParseGrant(json);
      ADD_FAILURE() << json;
    } catch (const std::invalid_argument& e) {
      EXPECT_EQ(std::string_view(e.what()).find("secret"), std::string_view::npos) << e.what();
    }
  }
  EXPECT_THROW(ParseGrant(R"({"token":")" + std::string(40000, 'a') + R"("})"),
               std::invalid_argument);
}

TEST(TokenTest, KeepsATokenUntilShortlyBeforeItExpires) {
  const TokenCache::Time begin{};
  TokenCache cache;
  EXPECT_EQ(cache.Find("scope", begin), "");
  cache.Put("scope", {.token = "one", .lifetime = seconds(100)}, begin);
  EXPECT_EQ(cache.Find("scope", begin + seconds(89)), "one");
  EXPECT_EQ(cache.Find("scope", begin + seconds(91)), "");
  EXPECT_EQ(cache.Find("other", begin), "");
  cache.Put("scope", {.token = "two", .lifetime = seconds(100)}, begin + seconds(90));
  EXPECT_EQ(cache.Find("scope", begin + seconds(91)), "two");
}

TEST(TokenTest, DropsOnlyTheTokenThatWasRefused) {
  const TokenCache::Time now{};
  TokenCache cache;
  cache.Put("scope", {.token = "new", .lifetime = seconds(60)}, now);
  cache.Drop("scope", "old");
  EXPECT_EQ(cache.Find("scope", now), "new");
  cache.Drop("scope", "new");
  EXPECT_EQ(cache.Find("scope", now), "");
}

}  // namespace
}  // namespace msb::registry
