// SPDX-License-Identifier: Apache-2.0
//
// How RegistryClient authenticates.

#include <gtest/gtest.h>

#include <algorithm>

#include "src/base/base64.h"
#include "tests/unit/registry/registry_fixture.h"

namespace msb::registry {
namespace {

using test::ScriptedAnswer;
using test::ScriptedRegistry;
using test::ScriptedRequest;

const RegistryOptions kJoe{.username = "joe", .password = "s3cret"};

class RegistryAuthTest : public RegistryFixture {
 protected:
  RegistryAuthTest() { registry_.AddManifest(kRepository, "v1", kManifestType, "{}"); }

  static void ExpectManifest(RegistryClient& client) {
    EXPECT_TRUE(client.GetManifest(kRepository, "v1", 100));
  }
  void ExpectManifestError(const RegistryOptions& options, ErrorKind kind,
                           std::initializer_list<std::string> named) const {
    RegistryClient client = MakeClient(options);
    ExpectError([&] { client.GetManifest(kRepository, "v1", 100); }, kind, named);
  }
  std::size_t TokenRequests() const { return registry_.Requests("*", "/token").size(); }
};

TEST_F(RegistryAuthTest, SendsThePasswordOnlyIfItIsAskedFor) {
  RegistryClient client = MakeClient(kJoe);
  ExpectManifest(client);
  EXPECT_EQ(registry_.Requests().at(0).Header("authorization"), "");
  registry_.RequireBasic("joe", "s3cret");
  ExpectManifest(client);
  ExpectManifest(client);
  const auto requests = registry_.Requests();
  ASSERT_EQ(requests.size(), 4U) << "one was refused; then the client knows what to send";
  EXPECT_EQ(requests[1].Header("authorization"), "");
  EXPECT_EQ(requests[2].Header("authorization"), "Basic " + base::Base64Encode("joe:s3cret"));
  EXPECT_EQ(requests[3].Header("authorization"), requests[2].Header("authorization"));
}

TEST_F(RegistryAuthTest, UsesTheCredentialsOfDocker) {
  test::WriteFile(dir_ / "config.json", R"({"auths": {"https://)" + registry_.host() +
                                            R"(/v1/": {"auth": ")" +
                                            base::Base64Encode("joe:s3cret") + R"("}}})");
  registry_.RequireBasic("joe", "s3cret");
  RegistryClient client = MakeClient();
  ExpectManifest(client);
}

TEST_F(RegistryAuthTest, SendsAWrongPasswordOnce) {
  registry_.RequireBasic("joe", "other");
  ExpectManifestError(kJoe, ErrorKind::kRegistryUnauthorized,
                      {"GET of manifest 'v1'", "401", "UNAUTHORIZED: authentication required",
                       "check the username and the password"});
  EXPECT_EQ(registry_.Requests().size(), 2U);
}

TEST_F(RegistryAuthTest, ExplainsHowToLogIn) {
  registry_.RequireBasic("joe", "s3cret");
  ExpectManifestError({}, ErrorKind::kRegistryUnauthorized,
                      {"401", "docker login " + registry_.host(), "username"});
}

TEST_F(RegistryAuthTest, ReportsAccessThatIsDenied) {
  registry_.Answer(
      "GET", "*", {.status = 403, .body = R"({"errors":[{"code":"DENIED","message":"not you"}]})"});
  ExpectManifestError(kJoe, ErrorKind::kRegistryUnauthorized, {"403", "'DENIED: not you'"});
  EXPECT_EQ(registry_.Requests().size(), 1U);
}

TEST_F(RegistryAuthTest, ReportsAKindOfAuthenticationThatIsNotSupported) {
  registry_.Answer("GET", "*", {.status = 401, .headers = {{"WWW-Authenticate", "Negotiate"}}});
  ExpectManifestError(kJoe, ErrorKind::kRegistryUnauthorized, {"401"});
}

TEST_F(RegistryAuthTest, TriesThePasswordOnceIfTheRegistryNamesNoScheme) {
  registry_.On("GET", "/v2/*", [](const ScriptedRequest& request) {
    const bool wrong =
        request.Header("authorization") != "Basic " + base::Base64Encode("joe:s3cret");
    return wrong ? std::optional(ScriptedAnswer{.status = 401}) : std::nullopt;
  });
  RegistryClient client = MakeClient(kJoe);
  ExpectManifest(client);
  const std::size_t before = registry_.Requests().size();
  ExpectManifestError({.username = "joe", .password = "other"}, ErrorKind::kRegistryUnauthorized,
                      {"401"});
  EXPECT_EQ(registry_.Requests().size(), before + 2);
  // The credentials in docker's configuration are only sent to registries that name a scheme.
  ExpectManifestError({}, ErrorKind::kRegistryUnauthorized, {"401", "docker login"});
  EXPECT_EQ(registry_.Requests().size(), before + 3);
}

TEST_F(RegistryAuthTest, NeedsNoHelperUnlessTheRegistryDemandsAuthentication) {
  test::WriteFile(dir_ / "config.json", R"({"credsStore": "absent"})");
  RegistryClient client = MakeClient();
  ExpectManifest(client);
  registry_.RequireBasic("joe", "s3cret");
  EXPECT_MSB_ERROR(client.GetManifest(kRepository, "v1", 100), ErrorKind::kInvalidConfig,
                   "docker-credential-absent", "not on the PATH");
}

// Amazon's public registry does this: its tokens are valid for all repositories.
TEST_F(RegistryAuthTest, AsksForTheScopeThatTheRegistryDemands) {
  registry_.On("*", "/v2/*", [&](const ScriptedRequest& request) {
    const std::string challenge =
        "Bearer realm=\"" + registry_.url() + "/token\",service=\"registry\",scope=\"aws\"";
    return request.Header("authorization") == "Bearer token-aws"
               ? std::nullopt
               : std::optional(
                     ScriptedAnswer{.status = 401, .headers = {{"WWW-Authenticate", challenge}}});
  });
  registry_.On("GET", "/token", [](const ScriptedRequest& request) {
    const bool aws = request.query.ends_with("&scope=aws");
    return ScriptedAnswer{.body = aws ? R"({"token":"token-aws"})" : R"({"token":"token-none"})"};
  });
  RegistryClient client = MakeClient();
  ExpectManifest(client);
  EXPECT_EQ(registry_.Requests("GET", "/token").back().query,
            "service=registry&scope=repository%3Ateam%2Fapp%3Apull&scope=aws");
  ExpectManifest(client);
  EXPECT_EQ(TokenRequests(), 1U);
  // A push has another scope, for which the registry must demand its own scope again.
  EXPECT_EQ(Put(client, BlobOf("bytes")), PutResult::kSent);
}

TEST_F(RegistryAuthTest, DoesNotAskTwiceForTheSameScope) {
  registry_.On("GET", "/v2/*", [&](const ScriptedRequest& request) {
    const std::string challenge =
        "Bearer realm=\"" + registry_.url() + "/token\",scope=\"repository:team/app:pull\"";
    return request.Header("authorization").empty()
               ? std::optional(
                     ScriptedAnswer{.status = 401, .headers = {{"WWW-Authenticate", challenge}}})
               : std::nullopt;
  });
  registry_.Answer("GET", "/token", {.body = R"({"token":"token-1"})"});
  RegistryClient client = MakeClient();
  ExpectManifest(client);
  EXPECT_EQ(registry_.Requests("GET", "/token").at(0).query,
            "scope=repository%3Ateam%2Fapp%3Apull");
}

TEST_F(RegistryAuthTest, SendsAnIdentityTokenAsAPasswordIfTheTokenServerLacksPost) {
  test::WriteFile(dir_ / "config.json",
                  R"({"auths": {")" + registry_.host() + R"(": {"identitytoken": "s3cret"}}})");
  registry_.RequireTokens({.username = "<token>", .password = "s3cret"});
  for (const int status : {404, 405}) {
    registry_.Answer("POST", "/token", {.status = status});
    const std::size_t before = TokenRequests();
    RegistryClient client = MakeClient();
    ExpectManifest(client);
    registry_.RevokeTokens();
    ExpectManifest(client);
    EXPECT_EQ(TokenRequests() - before, 3U) << status;
  }
}

TEST_F(RegistryAuthTest, GetsOneTokenForAllRequestsOfAScope) {
  registry_.RequireTokens({.username = "joe", .password = "s3cret"});
  RegistryClient client = MakeClient(kJoe);
  int left = 20;
  for (int i = 0; i < 20; ++i) {
    client.PutBlob(kRepository, BlobOf("blob " + std::to_string(i)), [&](PutResult) { --left; });
  }
  client.Run([&] { return left == 0; });
  const auto tokens = registry_.Requests("GET", "/token");
  ASSERT_EQ(tokens.size(), 1U);
  EXPECT_EQ(tokens[0].query, "service=registry&scope=repository%3Ateam%2Fapp%3Apull%2Cpush");
  EXPECT_EQ(tokens[0].Header("authorization"), "Basic " + base::Base64Encode("joe:s3cret"));
  for (const ScriptedRequest& request : registry_.Requests("*", "/v2/*")) {
    const std::string authorization = request.Header("authorization");
    EXPECT_TRUE(authorization.empty() || authorization == "Bearer token-1") << authorization;
  }
  ExpectManifest(client);
  EXPECT_EQ(registry_.Requests("GET", "/token").back().query,
            "service=registry&scope=repository%3Ateam%2Fapp%3Apull");
}

TEST_F(RegistryAuthTest, AsksForTheRightToReadWhatItMounts) {
  registry_.RequireTokens({});
  registry_.AddBlob("other", "bytes");
  RegistryClient client = MakeClient();
  EXPECT_EQ(Put(client, BlobOf("bytes", "other")), PutResult::kMounted);
  EXPECT_EQ(registry_.Requests("GET", "/token").back().query,
            "service=registry&scope=repository%3Ateam%2Fapp%3Apull%2Cpush"
            "&scope=repository%3Aother%3Apull");
}

TEST_F(RegistryAuthTest, SendsABlobIfNoTokenIsGrantedForTheMount) {
  registry_.RequireTokens({});
  registry_.On("GET", "/token", [](const ScriptedRequest& request) {
    const bool mount = request.query.find("other") != std::string::npos;
    return mount ? std::optional(ScriptedAnswer{.status = 403}) : std::nullopt;
  });
  RegistryClient client = MakeClient();
  EXPECT_EQ(Put(client, BlobOf("bytes", "other")), PutResult::kSent);
}

TEST_F(RegistryAuthTest, GetsATokenWithoutCredentials) {
  registry_.RequireTokens({});
  RegistryClient client = MakeClient();
  ExpectManifest(client);
  EXPECT_EQ(registry_.Requests("GET", "/token").at(0).Header("authorization"), "");
}

TEST_F(RegistryAuthTest, ExchangesAnIdentityToken) {
  test::WriteFile(dir_ / "config.json",
                  R"({"auths": {")" + registry_.host() + R"(": {"identitytoken": "s3cret/+&"}}})");
  registry_.RequireTokens({.refresh_token = "s3cret/+&"});
  RegistryClient client = MakeClient();
  ExpectManifest(client);
  const auto requests = registry_.Requests("POST", "/token");
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_EQ(requests[0].query, "");
  EXPECT_EQ(requests[0].Header("authorization"), "");
  EXPECT_EQ(requests[0].Header("content-type"), "application/x-www-form-urlencoded");
  EXPECT_EQ(requests[0].body,
            "grant_type=refresh_token&client_id=msb&service=registry&scope=repository%3Ateam%2Fapp"
            "%3Apull&refresh_token=s3cret%2F%2B%26");
}

TEST_F(RegistryAuthTest, AnIdentityTokenFollowsNoRedirect) {
  ScriptedRegistry other;
  test::WriteFile(dir_ / "config.json",
                  R"({"auths": {")" + registry_.host() + R"(": {"identitytoken": "s3cret"}}})");
  registry_.RequireTokens({.refresh_token = "s3cret"});
  registry_.Answer("POST", "/token",
                   {.status = 307, .headers = {{"Location", other.url() + "/token"}}});
  ExpectManifestError({}, ErrorKind::kRegistryUnauthorized, {"307", "token"});
  EXPECT_TRUE(other.Requests().empty());
}

TEST_F(RegistryAuthTest, RenewsATokenThatHasExpired) {
  registry_.RequireTokens({.username = "joe", .password = "s3cret"});
  RegistryClient client = MakeClient(kJoe);
  ExpectManifest(client);
  registry_.RevokeTokens();
  ExpectManifest(client);
  EXPECT_EQ(TokenRequests(), 2U);
  ExpectManifest(client);
  EXPECT_EQ(TokenRequests(), 2U);
}

TEST_F(RegistryAuthTest, SurvivesAbsurdLifetimes) {
  for (const std::string lifetime : {"", "0", "-1", "1e300", "99999999999999999999", "\"soon\""}) {
    registry_.RequireTokens({.expires_in = lifetime});
    registry_.RevokeTokens();
    RegistryClient client = MakeClient();
    const std::size_t before = TokenRequests();
    ExpectManifest(client);
    ExpectManifest(client);
    EXPECT_EQ(TokenRequests(), before + 1) << lifetime;
  }
}

TEST_F(RegistryAuthTest, EndsALoopOfRefusals) {
  registry_.RequireTokens({});
  registry_.On("GET", "/v2/*", [&](const ScriptedRequest&) {
    return ScriptedAnswer{
        .status = 401,
        .headers = {{"WWW-Authenticate", "Bearer realm=\"" + registry_.url() + "/token\""}}};
  });
  ExpectManifestError({}, ErrorKind::kRegistryUnauthorized, {"401"});
  EXPECT_EQ(registry_.Requests("GET", "/v2/*").size(), 2U);
  EXPECT_EQ(TokenRequests(), 1U);
}

TEST_F(RegistryAuthTest, ReportsWhyNoTokenIsGranted) {
  registry_.RequireTokens({.username = "joe", .password = "other"});
  ExpectManifestError(kJoe, ErrorKind::kRegistryUnauthorized,
                      {"GET of manifest 'v1'", "token server", "401", "UNAUTHORIZED: who are you?",
                       "check the username"});
  EXPECT_EQ(TokenRequests(), 1U);
}

TEST_F(RegistryAuthTest, RepeatsARequestToTheTokenServer) {
  registry_.RequireTokens({});
  registry_.Answer("GET", "/token", Status(503), 2);
  RegistryClient client = MakeClient();
  ExpectManifest(client);
  EXPECT_EQ(TokenRequests(), 3U);
}

TEST_F(RegistryAuthTest, RefusesAMalformedToken) {
  registry_.RequireTokens({});
  for (const std::string body :
       {R"({"token":"s3cret)", R"({"token":"s3cret\r\nX: y"})", "{}", "", R"({"token":5})"}) {
    registry_.Answer("GET", "/token", {.body = body}, 1);
    ExpectManifestError({}, ErrorKind::kSnapshotIntegrity,
                        {"token", "the response is malformed", "check the token server"});
  }
  registry_.Answer("GET", "/token",
                   {.body = std::string(1 << 16, 'x'),
                    .framing = ScriptedAnswer::Framing::kChunked,
                    .endless = true},
                   1);
  ExpectManifestError({}, ErrorKind::kSnapshotIntegrity, {"token", "longer than"});
}

TEST_F(RegistryAuthTest, SendsCredentialsToSafeTokenServersOnly) {
  registry_.RequireTokens({.realm = "http://auth.example/token"});
  ExpectManifestError(kJoe, ErrorKind::kRegistryUnauthorized,
                      {"http://auth.example", "does not use HTTPS"});
  for (const std::string realm : {"", "/token", "ftp://auth.example/", "file:///etc/passwd",
                                  "http://joe:s3cret@auth.example/"}) {
    registry_.On("GET", "/v2/*", [realm](const ScriptedRequest&) {
      return ScriptedAnswer{.status = 401,
                            .headers = {{"WWW-Authenticate", "Bearer realm=\"" + realm + "\""}}};
    });
    ExpectManifestError(kJoe, ErrorKind::kSnapshotIntegrity, {"token server", "invalid"});
  }
}

TEST_F(RegistryAuthTest, ARedirectOfTheTokenServerGetsNoCredentials) {
  ScriptedRegistry other;
  other.Answer("GET", "/token", {.body = R"({"token":"token-9"})"});
  registry_.RequireTokens({.username = "joe", .password = "s3cret"});
  registry_.Answer("GET", "/token",
                   {.status = 302, .headers = {{"Location", other.url() + "/token"}}});
  ExpectManifestError(kJoe, ErrorKind::kRegistryUnauthorized, {"401"});
  EXPECT_EQ(other.Requests().at(0).Header("authorization"), "");
}

TEST_F(RegistryAuthTest, ATokenIsSentToTheRegistryOnly) {
  ScriptedRegistry storage;
  storage.Answer("GET", "/x", {.body = "bytes"});
  storage.Answer("PUT", "/y", {.status = 201});
  registry_.RequireTokens({});
  const std::string digest = registry_.AddBlob(kRepository, "bytes");
  const auto authorized = [](ScriptedAnswer answer) {
    return [answer](const ScriptedRequest& request) {
      return request.Header("authorization").empty() ? std::nullopt : std::optional(answer);
    };
  };
  registry_.On("GET", BlobPath(digest),
               authorized({.status = 307, .headers = {{"Location", storage.url() + "/x"}}}));
  registry_.On("POST", "/v2/*",
               authorized({.status = 202, .headers = {{"Location", storage.url() + "/y"}}}));
  RegistryClient client = MakeClient();
  EXPECT_EQ(Get(client, DescriptorOf("bytes")), "bytes");
  EXPECT_EQ(Put(client, BlobOf("other")), PutResult::kSent);
  ASSERT_EQ(storage.Requests().size(), 2U);
  for (const ScriptedRequest& request : storage.Requests()) {
    EXPECT_EQ(request.Header("authorization"), "");
  }
}

TEST_F(RegistryAuthTest, RemovesCredentialsThatTheRegistryRepeats) {
  const auto repeat = [](const ScriptedRequest& request) -> std::optional<ScriptedAnswer> {
    const std::string authorization = request.Header("authorization");
    if (authorization.empty()) return std::nullopt;
    return ScriptedAnswer{
        .status = 403,
        .body = R"({"errors":[{"message":"bad s3cret in )" + authorization + R"("}]})"};
  };
  registry_.RequireBasic("joe", "s3cret");
  registry_.On("GET", "/v2/*", repeat);
  ExpectManifestError(kJoe, ErrorKind::kRegistryUnauthorized, {"'bad *** in Basic ***'"});
  registry_.RequireTokens({});
  ExpectManifestError(kJoe, ErrorKind::kRegistryUnauthorized, {"'bad *** in Bearer ***'"});
}

}  // namespace
}  // namespace msb::registry
