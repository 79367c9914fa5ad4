// SPDX-License-Identifier: Apache-2.0
//
// Registries with TLS, with passwords, and with a token server.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <cstdlib>
#include <optional>

#include "tests/registry/registry_home.h"
#include "tests/registry/token_server.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* kUser = "ada";
constexpr const char* kPassword = "correct horse";

// Sets an environment variable, and restores it at the end.
class EnvironmentVariable {
 public:
  EnvironmentVariable(std::string name, const std::string& value) : name_(std::move(name)) {
    if (const char* old = std::getenv(name_.c_str())) old_ = old;
    setenv(name_.c_str(), value.c_str(), 1);
  }
  EnvironmentVariable(const EnvironmentVariable&) = delete;
  EnvironmentVariable& operator=(const EnvironmentVariable&) = delete;
  ~EnvironmentVariable() {
    old_ ? setenv(name_.c_str(), old_->c_str(), 1) : unsetenv(name_.c_str());
  }

 private:
  const std::string name_;
  std::optional<std::string> old_;
};

class TlsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!DockerRegistry::IsInstalled()) GTEST_SKIP() << "docker-registry is not installed";
    registry_.emplace(
        DockerRegistryOptions{.certificate = MakeServerCertificate(dir_.path(), authority_)});
    MakeStoppedSandbox(here_, "web", dir_ / "web.img");
    Snapshot::Create(ctx_, "web", {.name = "web"}, here_);
  }

  std::string Target() const { return registry_->address() + "/web"; }

  const Context ctx_ = Soon();
  TempDir dir_;
  const Certificate authority_ = MakeAuthority(dir_.path());
  std::optional<DockerRegistry> registry_;
  Client here_ = LocalClient(dir_ / "here");
  Client there_ = LocalClient(dir_ / "there");
};

TEST_F(TlsTest, TrustsTheGivenAuthority) {
  const RegistryOptions options{.ca_file = authority_.certificate};
  Snapshot::Push(ctx_, "web", Target(), {.registry = options}, here_);
  EXPECT_EQ(registry_->storage().Missing(), "");
  ExpectSame(Snapshot::Open(ctx_, "web", here_),
             Snapshot::Pull(ctx_, Target(), "", {.registry = options}, there_).Open(ctx_));
}

TEST_F(TlsTest, RefusesAnotherAuthority) {
  const RegistryOptions options{.ca_file = MakeAuthority(dir_.path(), "other").certificate};
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", Target(), {.registry = options}, here_),
                   ErrorKind::kRegistryUnavailable, registry_->address(), "ca_file");
  EXPECT_MSB_ERROR(Snapshot::Pull(ctx_, Target(), "", {.registry = options}, there_),
                   ErrorKind::kRegistryUnavailable, registry_->address(), "ca_file");
}

// Without ca_file, a loopback address is reached by HTTP.
TEST_F(TlsTest, ReportsThatTheRegistryRequiresHttps) {
  for (const RegistryOptions& options : {RegistryOptions{}, RegistryOptions{.plain_http = true}}) {
    EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", Target(), {.registry = options}, here_),
                     ErrorKind::kRegistryUnavailable, registry_->address(), "requires HTTPS",
                     "ca_file", "plain_http");
    EXPECT_MSB_ERROR(Snapshot::Pull(ctx_, Target(), "", {.registry = options}, there_),
                     ErrorKind::kRegistryUnavailable, registry_->address(), "requires HTTPS",
                     "ca_file", "plain_http");
  }
}

TEST_F(TlsTest, RefusesARegistryWithoutTls) {
  DockerRegistry plain;
  const RegistryOptions options{.ca_file = authority_.certificate, .retries = 0};
  EXPECT_MSB_ERROR(
      Snapshot::Push(ctx_, "web", plain.address() + "/web", {.registry = options}, here_),
      ErrorKind::kRegistryUnavailable, plain.address(), "plain_http");
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", plain.address() + "/web",
                                  {.registry = {.ca_file = dir_ / "absent.pem"}}, here_),
                   ErrorKind::kIO, "absent.pem");
}

class PasswordTest : public RegistryTest {
 protected:
  PasswordTest() : RegistryTest({.user = kUser, .password = kPassword}) {}
  void SetUp() override {
    RegistryTest::SetUp();
    if (IsSkipped()) return;
    MakeRaw(here_, "web", 1 << 20, {{0, Noise(5000, 1)}});
  }

  void WriteConfig(const std::string& json) { WriteFile(dir_ / "docker/config.json", json); }

  // Expects both calls to succeed without explicit credentials.
  void ExpectAccess() {
    Snapshot::Push(ctx_, "web", At("web"), {}, here_);
    Snapshot::Pull(ctx_, At("web"), "", {}, there_);
  }

  Client here_ = Home("here");
  Client there_ = Home("there");
  const EnvironmentVariable config_{"DOCKER_CONFIG", dir_ / "docker"};
};

TEST_F(PasswordTest, AcceptsExplicitCredentials) {
  const RegistryOptions options{.username = kUser, .password = kPassword};
  Snapshot::Push(ctx_, "web", At("web"), {.registry = options}, here_);
  Snapshot::Pull(ctx_, At("web"), "", {.registry = options}, there_);
}

TEST_F(PasswordTest, RefusesWrongAndMissingCredentials) {
  const RegistryOptions wrong{.username = kUser, .password = "wrong staple"};
  for (const auto& [options, next_step] : {std::pair(wrong, "check the username and the password"),
                                           std::pair(RegistryOptions{}, "run 'docker login ")}) {
    try {
      Snapshot::Push(ctx_, "web", At("web"), {.registry = options}, here_);
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kRegistryUnauthorized);
      EXPECT_THAT(e.what(), HasSubstr(registry().address()));
      EXPECT_THAT(e.what(), HasSubstr("repository 'web'"));
      EXPECT_THAT(e.what(), HasSubstr(next_step));
      EXPECT_THAT(e.what(), Not(HasSubstr("staple")));
    }
    EXPECT_MSB_ERROR(Snapshot::Pull(ctx_, At("web"), "", {.registry = options}, there_),
                     ErrorKind::kRegistryUnauthorized, registry().address(), "repository 'web'");
  }
  EXPECT_EQ(storage().Blobs().size(), 0U);
}

TEST_F(PasswordTest, FindsThePasswordInTheConfigurationOfDocker) {
  const std::string plain = fmt::format("{}:{}", kUser, kPassword);
  std::string encoded(128, '\0');
  encoded.resize(static_cast<std::size_t>(EVP_EncodeBlock(
      reinterpret_cast<unsigned char*>(encoded.data()),
      reinterpret_cast<const unsigned char*>(plain.data()), static_cast<int>(plain.size()))));
  WriteConfig(
      fmt::format(R"({{"auths":{{"{}":{{"auth":"{}"}}}}}})", registry().address(), encoded));
  ExpectAccess();
}

TEST_F(PasswordTest, AsksACredentialHelper) {
  const fs::path helper = dir_ / "bin/docker-credential-msbtest";
  WriteFile(helper, fmt::format("#!/bin/sh\nread -r server\necho \"$1 $server\" >> '{}'\n"
                                "printf '{{\"ServerURL\":\"%s\",\"Username\":\"{}\","
                                "\"Secret\":\"{}\"}}' \"$server\"\n",
                                (dir_ / "asked").native(), kUser, kPassword));
  fs::permissions(helper, fs::perms::owner_all);
  const EnvironmentVariable path("PATH",
                                 (dir_ / "bin").native() + ":" + std::string(std::getenv("PATH")));
  for (const std::string& json :
       {fmt::format(R"({{"credHelpers":{{"{}":"msbtest"}}}})", registry().address()),
        std::string(R"({"credsStore":"msbtest"})")}) {
    WriteConfig(json);
    ExpectAccess();
  }
  EXPECT_THAT(ReadFile(dir_ / "asked"), StartsWith("get " + registry().address() + "\n"));
}

class TokenTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!DockerRegistry::IsInstalled()) GTEST_SKIP() << "docker-registry is not installed";
  }

  void Start(const TokenServerOptions& options) {
    tokens_.emplace(options);
    registry_.emplace(DockerRegistryOptions{.tokens = tokens_->Authority()});
    proxy_.emplace(registry_->port());
  }

  // Makes a snapshot of a disk with this many chunks.
  SnapshotArtifact Make(std::uint64_t chunks) {
    std::vector<std::pair<std::uint64_t, std::string>> data;
    for (std::uint64_t i = 0; i < chunks; ++i)
      data.emplace_back(i * kChunkBytes, FastNoise(5000, i));
    MakeSparseFile(dir_ / "web.img", chunks * kChunkBytes, data);
    MakeStoppedSandbox(here_, "web", dir_ / "web.img");
    return Snapshot::Create(ctx_, "web", {.name = "web"}, here_);
  }

  std::string Target(const std::string& name) const { return registry_->address() + "/" + name; }

  static const TokenServerOptions kServer;
  static const RegistryOptions kLogin;
  const Context ctx_ = Soon();
  TempDir dir_;
  std::optional<TokenServer> tokens_;
  std::optional<DockerRegistry> registry_;
  std::optional<TcpProxy> proxy_;
  Client here_ = LocalClient(dir_ / "here");
  Client there_ = LocalClient(dir_ / "there");
};

const TokenServerOptions TokenTest::kServer{.user = kUser, .password = kPassword};
const RegistryOptions TokenTest::kLogin{.username = kUser, .password = kPassword};

TEST_F(TokenTest, PushAndPullGetATokenEach) {
  Start(kServer);
  const auto pushed = Make(3);
  Snapshot::Push(ctx_, "web", Target("team/web"), {.registry = kLogin}, here_);
  const auto pushing = tokens_->Issued();
  EXPECT_THAT(pushing, Contains(Contains("repository:team/web:pull,push")));
  EXPECT_LE(pushing.size(), 2U);
  ExpectSame(pushed,
             Snapshot::Pull(ctx_, Target("team/web"), "", {.registry = kLogin}, there_).Open(ctx_));
  EXPECT_EQ(tokens_->Issued().back(), std::vector<std::string>{"repository:team/web:pull"});
  EXPECT_EQ(tokens_->Issued().size(), pushing.size() + 1);
}

TEST_F(TokenTest, WrongCredentialsAreRefused) {
  Start(kServer);
  Make(1);
  const RegistryOptions wrong{.username = kUser, .password = "wrong staple"};
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", Target("web"), {.registry = wrong}, here_),
                   ErrorKind::kRegistryUnauthorized, "wrong password", "repository 'web'");
  EXPECT_EQ(tokens_->Issued().size(), 0U);
  EXPECT_LE(tokens_->Refused(), 2);
}

// The registry refuses tokens after at most a second, while the client believes that they are valid
// for five minutes. The transfer takes longer.
TEST_F(TokenTest, RenewsTokensThatTheRegistryRefuses) {
  // The registry counts in whole seconds, so a token may expire a second early.
  Start({.user = kUser, .password = kPassword, .lifetime = seconds(2), .announced = seconds(300)});
  proxy_->SetLatency(milliseconds(100));
  const auto pushed = Make(16);
  RegistryOptions slow = kLogin;
  slow.connections = 1;
  const std::string target = proxy_->address() + "/web";
  Snapshot::Push(ctx_, "web", target, {.registry = slow}, here_);
  EXPECT_GE(tokens_->Issued().size(), 3U);
  const std::size_t before = tokens_->Issued().size();
  ExpectSame(pushed, Snapshot::Pull(ctx_, target, "", {.registry = slow}, there_).Open(ctx_));
  EXPECT_GE(tokens_->Issued().size(), before + 2);
}

TEST_F(TokenTest, AMountAsksForBothRepositories) {
  Start(kServer);
  Make(3);
  Snapshot::Push(ctx_, "web", Target("team/first"), {.registry = kLogin}, here_);
  const std::size_t requests = registry_->Requests().size();
  Snapshot::Push(ctx_, "web", Target("team/second"), {.registry = kLogin}, here_);
  EXPECT_THAT(tokens_->Issued(),
              Contains(testing::UnorderedElementsAre("repository:team/first:pull",
                                                     "repository:team/second:pull,push")));
  int mounted = 0;
  for (const std::string& request : registry_->Requests(requests)) {
    if (request.find("from=team") != std::string::npos && request.ends_with(" 201")) ++mounted;
  }
  EXPECT_GE(mounted, 3);
}

}  // namespace
}  // namespace msb::test
