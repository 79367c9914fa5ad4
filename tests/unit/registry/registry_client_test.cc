// SPDX-License-Identifier: Apache-2.0

#include "src/registry/registry_client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "tests/unit/registry/registry_fixture.h"

namespace msb::registry {
namespace {

using std::chrono::milliseconds;
using test::Event;
using test::ScriptedAnswer;
using test::ScriptedRequest;
using Framing = ScriptedAnswer::Framing;

class RegistryClientTest : public RegistryFixture {};

TEST_F(RegistryClientTest, GetsAManifestByTagAndByDigest) {
  const std::string digest = registry_.AddManifest(kRepository, "v1", kManifestType, "{\"a\":1}");
  RegistryClient client = MakeClient();
  for (const std::string& target : {std::string("v1"), digest}) {
    const auto document = client.GetManifest(kRepository, target, 100);
    ASSERT_TRUE(document);
    EXPECT_EQ(document->bytes, "{\"a\":1}");
    EXPECT_EQ(document->media_type, kManifestType);
    EXPECT_EQ(document->digest, digest);
  }
  const ScriptedRequest request = registry_.Requests().front();
  EXPECT_EQ(request.path, "/v2/team/app/manifests/v1");
  EXPECT_TRUE(test::Names(request.Header("accept"),
                          {"application/vnd.oci.image.index.v1+json", kManifestType}));
  EXPECT_EQ(request.Header("user-agent"), "msb/" MSB_VERSION_STRING);
  EXPECT_EQ(request.Header("authorization"), "");
}

TEST_F(RegistryClientTest, AnAbsentManifestIsNoError) {
  registry_.AddManifest(kRepository, "v1", kManifestType, "{}");
  RegistryClient client = MakeClient();
  EXPECT_FALSE(client.GetManifest(kRepository, "v2", 100));
  EXPECT_FALSE(client.GetManifest("other", "v1", 100));
}

TEST_F(RegistryClientTest, RefusesAManifestWithAnotherDigest) {
  const std::string digest = base::Sha256Digest("right");
  registry_.Answer("GET", "*", {.body = "wrong"});
  RegistryClient client = MakeClient();
  ExpectError([&] { client.GetManifest(kRepository, digest, 100); }, ErrorKind::kSnapshotIntegrity,
              {digest, base::Sha256Digest("wrong")});
}

TEST_F(RegistryClientTest, GetsBlobs) {
  const std::string bytes = test::Noise(3 << 20, 1);
  registry_.AddBlob(kRepository, bytes);
  registry_.AddBlob(kRepository, "");
  RegistryClient client = MakeClient();
  EXPECT_EQ(Get(client, DescriptorOf(bytes)), bytes);
  EXPECT_EQ(client.GetSmallBlob(kRepository, DescriptorOf(bytes)), bytes);
  EXPECT_EQ(Get(client, DescriptorOf("")), "");
}

TEST_F(RegistryClientTest, RefusesABlobOfAnotherSizeOrDigest) {
  const std::string bytes = "0123456789";
  const std::string digest = registry_.AddBlob(kRepository, bytes);
  RegistryClient client = MakeClient();
  const auto get = [&](std::uint64_t size) {
    return [&client, digest, size] { Get(client, {.digest = digest, .size = size}); };
  };
  ExpectError(get(9), ErrorKind::kSnapshotIntegrity, {digest, "longer than 9 bytes"});
  ExpectError(get(11), ErrorKind::kSnapshotIntegrity, {digest, "has 10 bytes, expected 11"});
  registry_.Answer("GET", "*", {.body = bytes, .framing = Framing::kChunked});
  ExpectError(get(9), ErrorKind::kSnapshotIntegrity, {"longer than 9 bytes"});
  ExpectError(get(11), ErrorKind::kSnapshotIntegrity, {"has 10 bytes, expected 11"});
  registry_.Answer("GET", "*", {.body = "9876543210"});
  ExpectError([&] { client.GetSmallBlob(kRepository, DescriptorOf(bytes)); },
              ErrorKind::kSnapshotIntegrity, {digest, base::Sha256Digest("9876543210")});
}

TEST_F(RegistryClientTest, ReportsAMissingBlob) {
  RegistryClient client = MakeClient();
  const BlobDescriptor absent = DescriptorOf("absent");
  ExpectError([&] { Get(client, absent); }, ErrorKind::kSnapshotIntegrity,
              {absent.digest, "404", "BLOB_UNKNOWN", "push it again"});
}

TEST_F(RegistryClientTest, RefusesNamesThatWouldChangeTheRequest) {
  RegistryClient client = MakeClient();
  EXPECT_MSB_ERROR(client.GetManifest("../x", "v1", 1), ErrorKind::kInvalidArgument, "'../x'");
  EXPECT_MSB_ERROR(client.GetManifest("a?b", "v1", 1), ErrorKind::kInvalidArgument, "'a?b'");
  for (const std::string digest : {"", "sha256:", "sha256:../../x", "../x"}) {
    EXPECT_MSB_ERROR(client.GetBlob("a", {.digest = digest}, {}), ErrorKind::kSnapshotIntegrity,
                     "blob digest '" + digest + "' is invalid");
  }
  for (const std::string target : {"", "../x", "a?b", "v1/../v2", "sha256:x", "a b"}) {
    EXPECT_MSB_ERROR(client.GetManifest("a", target, 1), ErrorKind::kInvalidArgument,
                     "manifest '" + target + "' is invalid");
    EXPECT_MSB_ERROR(client.PutManifest("a", target, {}), ErrorKind::kInvalidArgument,
                     "manifest '" + target + "' is invalid");
  }
  const RemoteDocument document{.media_type = "a\r\nHost: b", .digest = "", .bytes = ""};
  EXPECT_THROW(client.PutManifest("a", "v1", document), Error);
  NewBlob blob = BlobOf("x", "a b");
  EXPECT_MSB_ERROR(client.PutBlob("a", blob, {}), ErrorKind::kInvalidArgument, "'a b'");
  EXPECT_TRUE(registry_.Requests().empty());
}

TEST_F(RegistryClientTest, StopsAnEndlessBodyAtTheLimit) {
  const std::string block(1 << 16, 'x');
  registry_.Answer("GET", "*", {.body = block, .framing = Framing::kChunked, .endless = true});
  RegistryClient client = MakeClient();
  std::uint64_t traffic = 0;
  client.OnTraffic([&](std::uint64_t bytes) { traffic += bytes; });
  ExpectError([&] { client.GetManifest(kRepository, "v1", 1000); }, ErrorKind::kSnapshotIntegrity,
              {"longer than 1000 bytes"});
  EXPECT_LT(traffic, 1U << 20);
}

TEST_F(RegistryClientTest, DoesNotReadABodyThatIsAnnouncedToBeTooLong) {
  registry_.Answer("GET", "*", {.body = "x", .announced = std::size_t{1} << 60, .endless = true});
  RegistryClient client = MakeClient();
  ExpectError([&] { client.GetManifest(kRepository, "v1", 1000); }, ErrorKind::kSnapshotIntegrity,
              {"longer than 1000 bytes"});
}

TEST_F(RegistryClientTest, StopsAnEndlessErrorMessage) {
  registry_.Answer("GET", "*",
                   {.status = 400,
                    .body = std::string(1 << 16, 'x'),
                    .framing = Framing::kChunked,
                    .endless = true});
  RegistryClient client = MakeClient();
  ExpectError([&] { client.GetManifest(kRepository, "v1", 1000); }, ErrorKind::kRegistryUnavailable,
              {"the status is 400"});
}

TEST_F(RegistryClientTest, ReportsServersThatRequireHttps) {
  for (const char* body :
       {"Client sent an HTTP request to an HTTPS server.\n",
        "<html><body><center>The plain HTTP request was sent to HTTPS port</center></body></html>",
        "<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br /></p>"}) {
    registry_.Answer("GET", "*", {.status = 400, .body = body});
    RegistryClient client = MakeClient();
    ExpectError([&] { client.GetManifest(kRepository, "v1", 1000); },
                ErrorKind::kRegistryUnavailable, {"requires HTTPS", "ca_file", "plain_http"});
  }
}

TEST_F(RegistryClientTest, RefusesAnEndlessHeader) {
  ScriptedAnswer answer;
  for (int i = 0; i < 40; ++i)
    answer.headers.emplace_back("X-" + std::to_string(i), std::string(2000, 'x'));
  registry_.Answer("GET", "*", answer);
  RegistryClient client = MakeClient();
  ExpectError([&] { client.GetManifest(kRepository, "v1", 1000); }, ErrorKind::kSnapshotIntegrity,
              {"its header is longer than 65536"});
}

TEST_F(RegistryClientTest, ShowsLittleOfALongMessage) {
  registry_.Answer(
      "GET", "*",
      {.status = 400, .body = R"({"errors":[{"message":")" + std::string(10000, 'm') + "\"}]}"});
  RegistryClient client = MakeClient();
  try {
    client.GetManifest(kRepository, "v1", 1000);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_TRUE(test::Names(e.what(), {"'mmmm", "…'"}));
    EXPECT_LT(std::string_view(e.what()).size(), 800U);
  }
}

TEST_F(RegistryClientTest, WorksOnAsManyBlobsAsThereAreConnections) {
  constexpr int kConnections = 3;
  std::atomic<int> now = 0;
  std::atomic<int> most = 0;
  Event all;
  registry_.On("HEAD", "*", [&](const ScriptedRequest&) {
    const int here = ++now;
    for (int old = most; here > old && !most.compare_exchange_weak(old, here);) {
    }
    if (here == kConnections) all.Set();
    EXPECT_TRUE(all.WaitFor(std::chrono::seconds(60))) << "too few requests at the same time";
    --now;
    return std::nullopt;
  });
  RegistryClient client = MakeClient({.connections = kConnections});
  int left = 12;
  for (int i = 0; i < 12; ++i) {
    client.PutBlob(kRepository, BlobOf("blob " + std::to_string(i)), [&](PutResult) { --left; });
  }
  client.Run([&] { return left == 0; });
  EXPECT_EQ(most, kConnections);
}

TEST_F(RegistryClientTest, AWaitingCallComesBeforeBlobsThatWait) {
  registry_.AddManifest(kRepository, "v1", kManifestType, "{}");
  registry_.AddBlob(kRepository, "bytes");
  RegistryClient client = MakeClient({.connections = 1});
  for (int i = 0; i < 5; ++i)
    client.GetBlob(kRepository, DescriptorOf("bytes"), [](std::string) {});
  EXPECT_TRUE(client.GetManifest(kRepository, "v1", 100));
  EXPECT_LE(registry_.Requests("GET", BlobPath("*")).size(), 1U);
}

TEST_F(RegistryClientTest, CountsTheBytesOfBodies) {
  const std::string bytes = test::Noise(1 << 20, 1);
  RegistryClient client = MakeClient();
  std::uint64_t traffic = 0;
  client.OnTraffic([&](std::uint64_t more) { traffic += more; });
  registry_.Answer("HEAD", "*", {.status = 404});
  Put(client, BlobOf(bytes));
  EXPECT_EQ(traffic, bytes.size());
  Get(client, DescriptorOf(bytes));
  EXPECT_EQ(traffic, 2 * bytes.size());
}

TEST_F(RegistryClientTest, ADoneFunctionMayMakeRequests) {
  registry_.AddManifest(kRepository, "v1", kManifestType, "{}");
  registry_.AddBlob(kRepository, "bytes");
  RegistryClient client = MakeClient({.connections = 1});
  int got = 0;
  const auto get = [&] { got += client.GetManifest(kRepository, "v1", 100) ? 1 : 0; };
  client.GetBlob(kRepository, DescriptorOf("bytes"), [&](const std::string&) {
    get();
    client.PutBlob(kRepository, BlobOf("other"), [&](PutResult) { get(); });
  });
  client.Run([&] { return got == 2; });
}

TEST_F(RegistryClientTest, AnErrorInADoneFunctionEndsRun) {
  registry_.AddBlob(kRepository, "bytes");
  RegistryClient client = MakeClient();
  for (int i = 0; i < 3; ++i) {
    client.GetBlob(kRepository, DescriptorOf("bytes"),
                   [](const std::string&) { throw std::runtime_error("full"); });
  }
  EXPECT_THROW(client.Run([] { return false; }), std::runtime_error);
}

TEST_F(RegistryClientTest, ADestroyedClientCallsNothing) {
  const auto never = std::make_shared<Event>();
  for (const char* method : {"GET", "HEAD", "POST"}) {
    registry_.Answer(method, "*", {.after = never});
  }
  {
    RegistryClient client = MakeClient();
    client.GetBlob(kRepository, DescriptorOf("x"), [](const std::string&) { ADD_FAILURE(); });
    client.PutBlob(kRepository, BlobOf("y"), [](PutResult) { ADD_FAILURE(); });
    client.Run([&] { return !registry_.Requests("GET", "*").empty(); });
  }
  never->Set();
}

// The registry does not answer before the end of the test, so only the cancellation can end the
// call.
TEST_F(RegistryClientTest, ACancellationEndsACallToWhichNothingArrives) {
  registry_.Answer("GET", "*", {.after = std::make_shared<Event>()});
  const auto [ctx, cancel] = ctx_.WithCancel();
  RegistryClient client(ctx, registry_.host(), {});
  const std::jthread canceller([&, cancel = cancel] {
    EXPECT_TRUE(registry_.AwaitRequests("GET", "*", 1));
    cancel();
  });
  EXPECT_MSB_ERROR(client.GetManifest(kRepository, "v1", 100), ErrorKind::kCancelled, "cancelled");
}

// The complete body would take longer than the time-out of the test.
TEST_F(RegistryClientTest, ADeadlineEndsABodyThatDrips) {
  const std::string body(1'000'000, 'x');
  registry_.Answer("GET", "*", {.body = body, .drip = milliseconds(10)});
  const Context ctx = ctx_.WithTimeout(milliseconds(200));
  RegistryClient client(ctx, registry_.host(), {});
  std::uint64_t traffic = 0;
  client.OnTraffic([&](std::uint64_t bytes) { traffic += bytes; });
  EXPECT_MSB_ERROR(client.GetManifest(kRepository, "v1", 2 * body.size()), ErrorKind::kCancelled,
                   "deadline exceeded");
  EXPECT_LT(traffic, body.size());
}

TEST_F(RegistryClientTest, ACancellationEndsTheWaitForARepetition) {
  registry_.Answer("GET", "*", {.status = 503, .headers = {{"Retry-After", "60"}}});
  const auto [ctx, cancel] = ctx_.WithCancel();
  RegistryClient client(ctx, registry_.host(), {});
  std::thread canceller([&, cancel = cancel] {
    EXPECT_TRUE(registry_.AwaitRequests("GET", "*", 1));
    cancel();
  });
  EXPECT_MSB_ERROR(client.GetManifest(kRepository, "v1", 100), ErrorKind::kCancelled, "cancelled");
  canceller.join();
}

// Without Wake, Run would notice each event 50 ms later, when its wait ends. Another client, to
// which nothing happens, counts such waits.
TEST_F(RegistryClientTest, WakeEndsAWait) {
  constexpr int kEvents = 100;
  std::atomic<int> waits = 0;
  std::atomic<bool> over = false;
  std::jthread other([&] {
    RegistryClient client = MakeClient();
    client.Run([&] {
      ++waits;
      return over.load();
    });
  });
  RegistryClient client = MakeClient();
  for (int i = 0; i < kEvents; ++i) {
    Event waiting;
    std::atomic<bool> finished = false;
    const std::jthread waker([&] {
      waiting.Wait();
      finished = true;
      client.Wake();
    });
    client.Run([&] {
      waiting.Set();
      return finished.load();
    });
  }
  over = true;
  EXPECT_LT(waits, kEvents / 2);
}

TEST_F(RegistryClientTest, RefusesOptionsThatAreOutOfRange) {
  const auto refused = [&](const RegistryOptions& options, const std::string& problem) {
    EXPECT_MSB_ERROR(MakeClient(options), ErrorKind::kInvalidArgument, problem);
  };
  refused({.connections = 0}, "connections is 0");
  refused({.connections = 65}, "connections is 65");
  refused({.retries = -1}, "retries is -1");
  refused({.retries = 101}, "retries is 101");
  refused({.ca_file = "x", .plain_http = true}, "contradict");
  refused({.username = "joe"}, "no password");
  for (const std::string registry : {"", "a b", "joe@r.example", "r.example/", "R.example"}) {
    EXPECT_MSB_ERROR(RegistryClient(ctx_, registry, {}), ErrorKind::kInvalidArgument,
                     "registry '" + registry + "' is invalid", "HOST:PORT");
  }
}

TEST_F(RegistryClientTest, RefusesAFileWithoutCertificates) {
  const std::string path = dir_ / "ca.pem";
  EXPECT_MSB_ERROR(MakeClient({.ca_file = path}), ErrorKind::kIO, path);
  test::WriteFile(path, "no certificate");
  EXPECT_MSB_ERROR(MakeClient({.ca_file = path}), ErrorKind::kIO, path, "no certificates");
}

}  // namespace
}  // namespace msb::registry
