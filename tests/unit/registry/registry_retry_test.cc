// SPDX-License-Identifier: Apache-2.0
//
// What RegistryClient does about failures, redirects and hostile URLs.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <mutex>

#include "src/registry/http_client.h"
#include "tests/support/certificates.h"
#include "tests/support/tcp_proxy.h"
#include "tests/unit/registry/registry_fixture.h"

namespace msb::registry {
namespace {

using test::ScriptedAnswer;
using test::ScriptedRegistry;
using test::ScriptedRequest;
using Framing = ScriptedAnswer::Framing;

class RegistryRetryTest : public RegistryFixture {
 protected:
  RegistryRetryTest() { registry_.AddManifest(kRepository, "v1", kManifestType, "{}"); }

  void ExpectManifest(const RegistryOptions& options = {}) const {
    RegistryClient client = MakeClient(options);
    EXPECT_TRUE(client.GetManifest(kRepository, "v1", 100));
  }
  void ExpectManifestError(ErrorKind kind, std::initializer_list<std::string> named,
                           const RegistryOptions& options = {}) const {
    RegistryClient client = MakeClient(options);
    ExpectError([&] { client.GetManifest(kRepository, "v1", 100); }, kind, named);
  }
};

TEST_F(RegistryRetryTest, RepeatsARequestUntilItSucceeds) {
  for (const int status : {503, 500, 429, 408}) registry_.Answer("GET", "*", Status(status), 1);
  ExpectManifest();
  EXPECT_EQ(registry_.Requests().size(), 5U);
}

TEST_F(RegistryRetryTest, GivesUpAfterTheLastRepetition) {
  ScriptedAnswer answer = Status(503);
  answer.body = R"({"errors":[{"code":"UNAVAILABLE","message":"in maintenance"}]})";
  registry_.Answer("GET", "*", answer);
  ExpectManifestError(ErrorKind::kRegistryUnavailable,
                      {"GET of manifest 'v1'", "503", "'UNAVAILABLE: in maintenance'",
                       "attempt 3 of 3", "try again later"},
                      {.retries = 2});
  EXPECT_EQ(registry_.Requests().size(), 3U);
}

TEST_F(RegistryRetryTest, DoesNotRepeatWhatWillFailAgain) {
  for (const int status : {400, 405, 409, 413}) {
    registry_.Answer("GET", "*", Status(status), 1);
    ExpectManifestError(ErrorKind::kRegistryUnavailable, {std::to_string(status)});
  }
  EXPECT_EQ(registry_.Requests().size(), 4U);
}

TEST_F(RegistryRetryTest, WaitsBeforeARepetition) {
  registry_.Answer("GET", "*", {.status = 503}, 1);
  const auto begin = std::chrono::steady_clock::now();
  ExpectManifest();
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(350));
}

TEST_F(RegistryRetryTest, WaitsForAsLongAsTheRegistryAsks) {
  registry_.Answer("GET", "*", {.status = 429, .headers = {{"Retry-After", "1"}}}, 1);
  const auto begin = std::chrono::steady_clock::now();
  ExpectManifest();
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(990));
}

TEST_F(RegistryRetryTest, DoesNotWaitForADay) {
  registry_.Answer("GET", "*", {.status = 429, .headers = {{"Retry-After", "86400"}}});
  ExpectManifestError(ErrorKind::kRegistryUnavailable,
                      {"429", "a delay of 86400 s", "the limit of 300 s"});
  registry_.Answer("GET", "*",
                   {.status = 503, .headers = {{"Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"}}});
  ExpectManifestError(ErrorKind::kRegistryUnavailable, {"503", "exceeds the limit of 300 s"});
  EXPECT_EQ(registry_.Requests().size(), 2U);
}

TEST_F(RegistryRetryTest, DoesNotWaitForLongerThanTheDeadline) {
  registry_.Answer("GET", "*", {.status = 429, .headers = {{"Retry-After", "200"}}});
  ExpectManifestError(ErrorKind::kRegistryUnavailable,
                      {"a delay of 200 s", "the time left until the deadline"});
}

// A registry that permits 10 requests per second, with bursts of 4.
TEST_F(RegistryRetryTest, SlowsDownForARegistryThatLimitsTheRate) {
  for (const std::string retry_after : {"0", ""}) {
    std::mutex mutex;
    double tokens = 4;
    auto last = std::chrono::steady_clock::now();
    registry_.On("*", "*", [&](const ScriptedRequest&) -> std::optional<ScriptedAnswer> {
      const std::lock_guard lock(mutex);
      const auto now = std::chrono::steady_clock::now();
      tokens = std::min(4.0, tokens + 10 * std::chrono::duration<double>(now - last).count());
      last = now;
      if (tokens < 1)
        return ScriptedAnswer{.status = 429, .headers = {{"Retry-After", retry_after}}};
      --tokens;
      return std::nullopt;
    });
    const std::size_t before = registry_.Requests().size();
    RegistryClient client = MakeClient({.retries = 2});
    int left = 8;
    for (int i = 0; i < 8; ++i) {
      client.PutBlob(kRepository, BlobOf(retry_after + "blob " + std::to_string(i)),
                     [&](PutResult) { --left; });
    }
    client.Run([&] { return left == 0; });
    // 24 requests are needed.
    EXPECT_LT(registry_.Requests().size() - before, 60U) << retry_after;
    registry_.On("*", "*", [](const ScriptedRequest&) { return std::nullopt; });
  }
}

// Each upload makes progress with the requests before the one that is refused.
TEST_F(RegistryRetryTest, UploadsThatAreAlwaysRefusedEnd) {
  registry_.Answer("PUT", "*", Status(503));
  RegistryClient client = MakeClient({.retries = 2});
  for (int i = 0; i < 8; ++i) {
    client.PutBlob(kRepository, BlobOf("blob " + std::to_string(i)), [](PutResult) {});
  }
  ExpectError([&] { client.Run([] { return false; }); }, ErrorKind::kRegistryUnavailable,
              {"PUT of blob", "503", "attempt 3 of 3"});
}

TEST_F(RegistryRetryTest, GetsABlobAgainIfTheConnectionBreaks) {
  const std::string bytes = test::Noise(100000, 1);
  const std::string digest = registry_.AddBlob(kRepository, bytes);
  registry_.Answer("GET", BlobPath(digest),
                   {.body = bytes.substr(0, 5000), .announced = bytes.size()}, 1);
  RegistryClient client = MakeClient();
  EXPECT_EQ(Get(client, DescriptorOf(bytes)), bytes);
  EXPECT_EQ(registry_.Requests("GET", BlobPath(digest)).size(), 2U);
}

TEST_F(RegistryRetryTest, ABlobIsNotFetchedWithoutEnd) {
  const std::string digest = registry_.AddBlob(kRepository, "bytes");
  registry_.Answer("GET", BlobPath(digest), Status(500));
  RegistryClient client = MakeClient({.retries = 3});
  ExpectError([&] { Get(client, DescriptorOf("bytes")); }, ErrorKind::kRegistryUnavailable,
              {digest, "500", "attempt 4 of 4"});
  EXPECT_EQ(registry_.Requests("GET", BlobPath(digest)).size(), 4U);
}

TEST_F(RegistryRetryTest, ABodyWithoutALengthMayBeCutOff) {
  const std::string bytes = test::Noise(100000, 1);
  const std::string digest = registry_.AddBlob(kRepository, bytes);
  registry_.Answer("GET", BlobPath(digest),
                   {.body = bytes.substr(0, 5000), .framing = Framing::kClose}, 1);
  RegistryClient client = MakeClient();
  EXPECT_EQ(Get(client, DescriptorOf(bytes)), bytes);
}

TEST_F(RegistryRetryTest, ABrokenConnectionIsReportedInTheEnd) {
  registry_.Answer("GET", "*", {.body = "{", .announced = 50});
  ExpectManifestError(ErrorKind::kRegistryUnavailable, {"GET of manifest 'v1'", "attempt 2 of 2"},
                      {.retries = 1});
}

TEST_F(RegistryRetryTest, ReportsARegistryThatDoesNotListen) {
  // Only root can listen on port 1, and services do not use it.
  const RegistryOptions options{.retries = 0};
  RegistryClient client(ctx_, "127.0.0.1:1", options);
  EXPECT_MSB_ERROR(client.GetManifest(kRepository, "v1", 1), ErrorKind::kRegistryUnavailable,
                   "'127.0.0.1:1'", kRepository, "attempt 1 of 1", "check that the registry works");
}

TEST_F(RegistryRetryTest, ATransferThatStallsIsAFailedConnection) {
  registry_.Answer("GET", "*", {.after = std::make_shared<test::Event>()});
  HttpClient http({.stall_time = std::chrono::seconds(1)});
  std::optional<HttpResponse> response;
  http.Start({.url = *Url::Parse(registry_.url() + "/v2/"), .limit = 10},
             [&](HttpResponse answer) { response = std::move(answer); });
  while (!response) http.Poll(std::chrono::milliseconds(50));
  EXPECT_EQ(response->failure, HttpFailure::kConnection);
  EXPECT_TRUE(test::Names(response->reason, {"too slow"}));
}

TEST_F(RegistryRetryTest, AFailedUploadBeginsAgain) {
  // 404: the registry was restarted, and has forgotten the upload.
  for (const int status : {503, 404}) registry_.Answer("PUT", "*", Status(status), 1);
  RegistryClient client = MakeClient();
  EXPECT_EQ(Put(client, BlobOf("bytes")), PutResult::kSent);
  EXPECT_EQ(registry_.Requests("HEAD", "*").size(), 1U);
  EXPECT_EQ(registry_.Requests("POST", "*").size(), 3U);
  const auto puts = registry_.Requests("PUT", "*");
  ASSERT_EQ(puts.size(), 3U);
  EXPECT_NE(puts[0].path, puts[1].path);
  EXPECT_EQ(puts[2].body, "bytes");
}

TEST_F(RegistryRetryTest, AnUploadIsNotRepeatedWithoutEnd) {
  registry_.Answer("PUT", "*", Status(404));
  RegistryClient client = MakeClient({.retries = 3});
  ExpectError([&] { Put(client, BlobOf("bytes")); }, ErrorKind::kRegistryUnavailable,
              {"PUT of blob sha256:", "404", "attempt 4 of 4"});
  EXPECT_EQ(registry_.Requests("PUT", "*").size(), 4U);
}

TEST_F(RegistryRetryTest, UploadsToTheLocationThatTheRegistryNames) {
  RegistryClient client = MakeClient();
  const BlobDescriptor blob = DescriptorOf("bytes");
  const std::string encoded = "digest=sha256%3A" + blob.digest.substr(7);
  const std::vector<std::pair<std::string, std::string>> locations = {
      {"1", "/v2/team/app/blobs/uploads/1?" + encoded},
      {"/elsewhere?a=b%2Fc", "/elsewhere?a=b%2Fc&" + encoded},
      {registry_.url() + "/absolute", "/absolute?" + encoded}};
  for (const auto& [location, expected] : locations) {
    registry_.Answer("POST", "*", {.status = 202, .headers = {{"Location", location}}}, 1);
    registry_.Answer("PUT", "*", {.status = 201}, 1);
    EXPECT_EQ(Put(client, BlobOf("bytes")), PutResult::kSent);
    const ScriptedRequest put = registry_.Requests("PUT", "*").back();
    EXPECT_EQ(put.path + "?" + put.query, expected);
    EXPECT_EQ(put.body, "bytes");
  }
}

TEST_F(RegistryRetryTest, ResolvesALocationAgainstTheUrlOfTheLastRedirect) {
  ScriptedRegistry other;
  registry_.Answer("POST", "*",
                   {.status = 307, .headers = {{"Location", other.url() + "/mirror/uploads/"}}});
  other.Answer("POST", "/mirror/uploads/", {.status = 202, .headers = {{"Location", "7"}}});
  other.Answer("PUT", "/mirror/uploads/7", {.status = 201});
  RegistryClient client = MakeClient();
  EXPECT_EQ(Put(client, BlobOf("bytes")), PutResult::kSent);
  EXPECT_EQ(other.Requests("PUT", "*").at(0).body, "bytes");
}

TEST_F(RegistryRetryTest, RefusesAnUploadWithoutAValidLocation) {
  RegistryClient client = MakeClient();
  for (const std::string location : {"", "ftp://r.example/x", "http://", "/a b"}) {
    registry_.Answer("POST", "*", {.status = 202, .headers = {{"Location", location}}}, 1);
    ExpectError([&] { Put(client, BlobOf("bytes")); }, ErrorKind::kSnapshotIntegrity,
                {"POST of an upload", "no valid URL"});
  }
}

TEST_F(RegistryRetryTest, FollowsRedirectsWithoutCredentials) {
  ScriptedRegistry storage;
  registry_.RequireBasic("joe", "s3cret");
  const std::string digest = registry_.AddBlob(kRepository, "bytes");
  registry_.On("GET", BlobPath(digest), [&](const ScriptedRequest& request) {
    return request.Header("authorization").empty()
               ? std::nullopt
               : std::optional(ScriptedAnswer{
                     .status = 307,
                     .headers = {{"Location", storage.url() + "/bucket/x?signature=s3cret"}}});
  });
  storage.Answer("GET", "/bucket/x", {.body = "bytes"});
  RegistryClient client = MakeClient({.username = "joe", .password = "s3cret"});
  EXPECT_EQ(Get(client, DescriptorOf("bytes")), "bytes");
  const auto requests = storage.Requests();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_EQ(requests[0].query, "signature=s3cret");
  EXPECT_EQ(requests[0].Header("authorization"), "");

  storage.Answer("GET", "/bucket/x", Status(500));
  ExpectError([&] { Get(client, DescriptorOf("bytes")); }, ErrorKind::kRegistryUnavailable,
              {digest, "500", "attempt 6 of 6"});
}

TEST_F(RegistryRetryTest, AsksForANewUrlIfStorageRefusesOne) {
  ScriptedRegistry storage;
  const std::string digest = registry_.AddBlob(kRepository, "bytes");
  registry_.Answer("GET", BlobPath(digest),
                   {.status = 302, .headers = {{"Location", storage.url() + "/x"}}});
  storage.Answer("GET", "/x", {.body = "bytes"});
  storage.Answer("GET", "/x", Status(403), 2);
  RegistryClient client = MakeClient();
  EXPECT_EQ(Get(client, DescriptorOf("bytes")), "bytes");
  EXPECT_EQ(registry_.Requests("GET", BlobPath(digest)).size(), 3U);
}

TEST_F(RegistryRetryTest, KeepsCredentialsWithinTheRegistry) {
  registry_.RequireBasic("joe", "s3cret");
  registry_.Answer("GET", "/v2/team/app/manifests/v1",
                   {.status = 302, .headers = {{"Location", "v2"}}});
  registry_.AddManifest(kRepository, "v2", kManifestType, "{}");
  ExpectManifest({.username = "joe", .password = "s3cret"});
}

TEST_F(RegistryRetryTest, AnotherServerDoesNotChooseWhatIsRequestedWithCredentials) {
  ScriptedRegistry storage;
  registry_.RequireBasic("joe", "s3cret");
  const std::string digest = registry_.AddBlob(kRepository, "bytes");
  storage.Answer("GET", "*",
                 {.status = 302, .headers = {{"Location", registry_.url() + "/v2/private"}}});
  registry_.On("GET", BlobPath(digest), [&](const ScriptedRequest& request) {
    return request.Header("authorization").empty()
               ? std::nullopt
               : std::optional(ScriptedAnswer{.status = 302,
                                              .headers = {{"Location", storage.url() + "/x"}}});
  });
  RegistryClient client = MakeClient({.username = "joe", .password = "s3cret", .retries = 0});
  ExpectError([&] { Get(client, DescriptorOf("bytes")); }, ErrorKind::kRegistryUnavailable,
              {digest, "401"});
  ASSERT_EQ(registry_.Requests("GET", "/v2/private").size(), 1U);
  EXPECT_EQ(registry_.Requests("GET", "/v2/private")[0].Header("authorization"), "");
}

TEST_F(RegistryRetryTest, EndsARedirectLoop) {
  registry_.Answer("GET", "*", {.status = 302, .headers = {{"Location", "v1"}}});
  ExpectManifestError(ErrorKind::kRegistryUnavailable, {"redirected more than 10 times"});
  EXPECT_EQ(registry_.Requests().size(), 11U);
}

TEST_F(RegistryRetryTest, RefusesARedirectToNowhere) {
  for (const std::string location :
       {"ftp://r.example/", "file:///etc/passwd", "http://a b/", "http://joe:s3cret@r.example/"}) {
    registry_.Answer("GET", "*", {.status = 301, .headers = {{"Location", location}}}, 1);
    ExpectManifestError(ErrorKind::kSnapshotIntegrity, {"status 301", "without a valid URL"});
  }
}

TEST_F(RegistryRetryTest, ARedirectedUploadKeepsItsMethodAndBody) {
  ScriptedRegistry storage;
  storage.Answer("PUT", "/x", {.status = 201});
  registry_.Answer("PUT", "*", {.status = 307, .headers = {{"Location", storage.url() + "/x"}}});
  RegistryClient client = MakeClient();
  EXPECT_EQ(Put(client, BlobOf("bytes")), PutResult::kSent);
  EXPECT_EQ(storage.Requests("PUT", "/x").at(0).body, "bytes");
  registry_.Answer("PUT", "*", {.status = 302, .headers = {{"Location", storage.url() + "/x"}}});
  ExpectError([&] { Put(client, BlobOf("bytes")); }, ErrorKind::kRegistryUnavailable, {"302"});
}

TEST_F(RegistryRetryTest, UsesNoProxyForLoopbackAddresses) {
  const test::ScopedVariable proxy("http_proxy", "http://127.0.0.1:1");
  const test::ScopedVariable all("ALL_PROXY", "http://127.0.0.1:1");
  ExpectManifest({.retries = 0});
}

TEST_F(RegistryRetryTest, UsesTheProxyForOtherAddresses) {
  const test::ScopedVariable proxy("http_proxy", registry_.url());
  RegistryClient client(ctx_, "r.example", {.plain_http = true, .retries = 0});
  registry_.Answer("GET", "*", {.body = "{}"});
  EXPECT_TRUE(client.GetManifest(kRepository, "v1", 100));
  EXPECT_EQ(registry_.Requests().at(0).Header("host"), "r.example");
}

class RegistryTlsTest : public RegistryFixture {
 protected:
  const test::Certificate authority_ = test::MakeAuthority(dir_.path());
  const test::Certificate certificate_ = test::MakeServerCertificate(dir_.path(), authority_);
  ScriptedRegistry secure_{certificate_.certificate, certificate_.key};
};

TEST_F(RegistryTlsTest, TrustsTheCertificatesOfCaFile) {
  secure_.AddManifest(kRepository, "v1", kManifestType, "{}");
  secure_.RequireTokens({.username = "joe", .password = "s3cret"});
  RegistryClient client(
      ctx_, secure_.host(),
      {.username = "joe", .password = "s3cret", .ca_file = authority_.certificate});
  EXPECT_TRUE(client.GetManifest(kRepository, "v1", 100));
  int left = 20;
  for (int i = 0; i < 20; ++i) {
    client.PutBlob(kRepository, BlobOf(test::Noise(100000, 1U + static_cast<unsigned>(i))),
                   [&](PutResult) { --left; });
  }
  client.Run([&] { return left == 0; });
  EXPECT_EQ(secure_.Requests("PUT", "*").size(), 20U);
}

TEST_F(RegistryTlsTest, TrustsNoOtherCertificates) {
  RegistryClient client(ctx_, secure_.host(),
                        {.ca_file = test::MakeAuthority(dir_.path(), "other").certificate});
  EXPECT_MSB_ERROR(client.GetManifest(kRepository, "v1", 100), ErrorKind::kRegistryUnavailable,
                   secure_.host(), kRepository, "certificate", "ca_file");
  EXPECT_TRUE(secure_.Requests().empty());
}

TEST_F(RegistryTlsTest, ExplainsThatTheRegistryDoesNotUseTls) {
  RegistryClient client = MakeClient({.ca_file = authority_.certificate});
  ExpectError([&] { client.GetManifest(kRepository, "v1", 100); }, ErrorKind::kRegistryUnavailable,
              {"does not use HTTPS", "plain_http"});
}

// Some servers just close the connection.
TEST_F(RegistryTlsTest, MentionsThatTheRegistryMayNotUseTls) {
  test::TcpProxy proxy(std::stoi(registry_.host().substr(registry_.host().rfind(':') + 1)));
  proxy.CutEach(1);
  RegistryClient client(ctx_, proxy.address(), {.ca_file = authority_.certificate, .retries = 0});
  EXPECT_MSB_ERROR(client.GetManifest(kRepository, "v1", 100), ErrorKind::kRegistryUnavailable,
                   "attempt 1 of 1", "if it does not use HTTPS", "plain_http");
}

TEST_F(RegistryTlsTest, DoesNotLeaveHttps) {
  secure_.AddBlob(kRepository, "bytes");
  secure_.Answer("GET", "*", {.status = 307, .headers = {{"Location", registry_.url() + "/x"}}});
  secure_.Answer("POST", "*", {.status = 202, .headers = {{"Location", registry_.url() + "/x"}}});
  RegistryClient client(ctx_, secure_.host(), {.ca_file = authority_.certificate});
  EXPECT_MSB_ERROR(Get(client, DescriptorOf("bytes")), ErrorKind::kRegistryUnavailable,
                   "redirected from HTTPS to HTTP");
  EXPECT_MSB_ERROR(Put(client, BlobOf("other")), ErrorKind::kRegistryUnavailable,
                   "does not use HTTPS");
  secure_.RequireTokens({.realm = registry_.url() + "/token"});
  EXPECT_MSB_ERROR(Put(client, BlobOf("third")), ErrorKind::kRegistryUnauthorized,
                   "does not use HTTPS");
  EXPECT_TRUE(registry_.Requests().empty());
}

}  // namespace
}  // namespace msb::registry
