// SPDX-License-Identifier: Apache-2.0

#include "src/registry/credentials.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "src/base/base64.h"
#include "src/base/process.h"
#include "src/registry/credential_helper.h"
#include "tests/support/scoped_variable.h"
#include "tests/support/support.h"

namespace msb::registry {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRegistry = "r.example:5000";

class CredentialsTest : public testing::Test {
 protected:
  void WriteConfig(const std::string& json) { test::WriteFile(config_, json); }

  // Makes the program docker-credential-NAME, a shell script.
  void MakeHelper(const std::string& name, const std::string& script) {
    const fs::path path = dir_ / ("docker-credential-" + name);
    test::WriteFile(path, "#!/bin/sh\n" + script + "\n");
    fs::permissions(path, fs::perms::owner_all);
  }

  Credentials Find(const RegistryOptions& options = {}, const Context& ctx = test::Soon()) const {
    return FindCredentials(ctx, kRegistry, options);
  }

  // Expects that FindCredentials throws, with a message that contains these texts but not "secret".
  void ExpectError(ErrorKind kind, std::initializer_list<std::string> named,
                   const RegistryOptions& options = {}) const {
    try {
      Find(options);
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(kind)) << e.what();
      EXPECT_TRUE(test::Names(e.what(), named));
      EXPECT_EQ(std::string_view(e.what()).find("secret"), std::string_view::npos) << e.what();
    }
  }

  const test::TempDir dir_;
  const fs::path config_ = dir_ / "config.json";
  const test::ScopedVariable docker_config_{"DOCKER_CONFIG", dir_.path().native()};
  const test::ScopedVariable path_{"PATH", dir_.path().native() + ":" + std::getenv("PATH")};
};

TEST_F(CredentialsTest, OptionsComeFirst) {
  WriteConfig("not JSON");
  const Credentials found = Find({.username = "joe", .password = "secret"});
  EXPECT_EQ(found.username, "joe");
  EXPECT_EQ(found.password, "secret");
}

TEST_F(CredentialsTest, RefusesHalfOfTheOptions) {
  ExpectError(ErrorKind::kInvalidArgument, {"has a username but no password", "set both"},
              {.username = "joe"});
  ExpectError(ErrorKind::kInvalidArgument, {"has a password but no username", "set both"},
              {.password = "secret"});
  ExpectError(ErrorKind::kInvalidArgument, {"contains a ':'"},
              {.username = "joe:x", .password = "secret"});
  ExpectError(ErrorKind::kInvalidArgument, {"control character"},
              {.username = "joe\r\nHost", .password = "secret"});
  ExpectError(ErrorKind::kInvalidArgument, {"longer than 64 KiB"},
              {.username = "joe", .password = std::string(100000, 's')});
}

// The keys of some registries' service accounts are JSON documents.
TEST_F(CredentialsTest, APasswordMayHaveSeveralLines) {
  EXPECT_EQ(Find({.username = "_json_key", .password = "{\n  \"a\": 1\n}\n"}).password,
            "{\n  \"a\": 1\n}\n");
}

TEST_F(CredentialsTest, IsAnonymousWithAnEmptyConfigurationFile) {
  for (const char* content : {"", " \n"}) {
    WriteConfig(content);
    EXPECT_TRUE(Find().IsAnonymous());
  }
}

TEST_F(CredentialsTest, IsAnonymousWithoutAConfigurationFile) {
  EXPECT_TRUE(Find().IsAnonymous());
  const test::ScopedVariable nowhere("DOCKER_CONFIG", (dir_ / "absent").native());
  EXPECT_TRUE(Find().IsAnonymous());
}

TEST_F(CredentialsTest, ReadsTheHomeDirectoryByDefault) {
  fs::create_directory(dir_ / ".docker");
  test::WriteFile(dir_ / ".docker/config.json",
                  R"({"auths": {"r.example:5000": {"username": "joe", "password": "secret"}}})");
  const test::ScopedVariable home("HOME", dir_.path().native());
  const test::ScopedVariable unset("DOCKER_CONFIG", "");
  EXPECT_EQ(Find().username, "joe");
}

TEST_F(CredentialsTest, FindsTheRegistryUnderEachFormOfItsName) {
  for (const std::string key :
       {"r.example:5000", "https://r.example:5000", "http://r.example:5000/",
        "https://r.example:5000/v1/", "https://r.example:5000/v2", "r.example:5000/v2/"}) {
    WriteConfig(R"({"auths": {")" + key + R"(": {"auth": ")" + base::Base64Encode("joe:secret:x") +
                R"("}}})");
    EXPECT_EQ(Find().username, "joe") << key;
    EXPECT_EQ(Find().password, "secret:x") << key;
  }
  for (const std::string key : {"r.example", "r.example:50000", "r.example:5000/team",
                                "xr.example:5000", "ftp://r.example:5000"}) {
    WriteConfig(R"({"auths": {")" + key + R"(": {"auth": ")" + base::Base64Encode("joe:secret") +
                R"("}}})");
    EXPECT_TRUE(Find().IsAnonymous()) << key;
  }
}

TEST_F(CredentialsTest, TheExactNameComesFirst) {
  WriteConfig(R"({"auths": {"https://r.example:5000": {"username": "other", "password": "p"},
                            "r.example:5000": {"username": "joe", "password": "p"}}})");
  EXPECT_EQ(Find().username, "joe");
}

TEST_F(CredentialsTest, ReadsAnIdentityToken) {
  WriteConfig(R"({"auths": {"r.example:5000": {"identitytoken": "refresh"}}})");
  EXPECT_EQ(Find().identity_token, "refresh");
  EXPECT_FALSE(Find().IsAnonymous());
}

TEST_F(CredentialsTest, IgnoresTheEmptyEntryOfACredentialStore) {
  WriteConfig(R"({"auths": {"r.example:5000": {}}, "HttpHeaders": {"User-Agent": "docker"}})");
  EXPECT_TRUE(Find().IsAnonymous());
}

TEST_F(CredentialsTest, RefusesAMalformedFileWithoutQuotingFromIt) {
  const std::string path = config_.native();
  WriteConfig(R"({"auths": {"r.example:5000": {"password": "secret)");
  ExpectError(ErrorKind::kInvalidConfig, {path, "invalid JSON at byte", "correct it"});
  WriteConfig(R"(["secret"])");
  ExpectError(ErrorKind::kInvalidConfig, {path, "must be an object"});
  WriteConfig(R"({"auths": "secret"})");
  ExpectError(ErrorKind::kInvalidConfig, {path, "auths must be an object"});
  WriteConfig(R"({"auths": {"r.example:5000": "secret"}})");
  ExpectError(ErrorKind::kInvalidConfig, {path, "auths['r.example:5000']", "an object"});
  WriteConfig(R"({"auths": {"r.example:5000": {"auth": "secret"}}})");
  ExpectError(ErrorKind::kInvalidConfig, {path, "auth", "Base64 form of USERNAME:PASSWORD"});
  WriteConfig(R"({"auths": {"r.example:5000": {"auth": ")" + base::Base64Encode("secret") +
              R"("}}})");
  ExpectError(ErrorKind::kInvalidConfig, {path, "USERNAME:PASSWORD"});
  WriteConfig(R"({"auths": {"r.example:5000": {"username": 5}}})");
  ExpectError(ErrorKind::kInvalidConfig, {path, "username", "must be a string"});
  WriteConfig(R"({"auths": {"r.example:5000": {"auth": ")" +
              base::Base64Encode("joe\r\nHost: x:secret") + R"("}}})");
  ExpectError(ErrorKind::kInvalidConfig, {path, "control character", "docker login"});
  WriteConfig(std::string((1 << 20) + 1, ' '));
  ExpectError(ErrorKind::kInvalidConfig, {path, "longer than 1048576 bytes"});
  fs::remove(config_);
  fs::create_directory(config_);
  ExpectError(ErrorKind::kInvalidConfig, {path, "must be a regular file", "DOCKER_CONFIG"});
}

TEST_F(CredentialsTest, AsksTheHelperOfTheRegistry) {
  WriteConfig(R"({"credHelpers": {"r.example:5000": "one"}, "credsStore": "other"})");
  MakeHelper("one", R"([ "$1" = get ] && read server && [ "$server" = r.example:5000 ] &&
                       echo '{"ServerURL":"x","Username":"joe","Secret":"secret"}')");
  MakeHelper("other", "exit 1");
  EXPECT_EQ(Find().username, "joe");
  EXPECT_EQ(Find().password, "secret");
}

TEST_F(CredentialsTest, AsksTheStoreForOtherRegistries) {
  WriteConfig(R"({"credHelpers": {"other.example": "one"}, "credsStore": "store"})");
  MakeHelper("store", R"(echo '{"Username":"<token>","Secret":"refresh"}')");
  EXPECT_EQ(Find().identity_token, "refresh");
  EXPECT_EQ(Find().username, "");
}

TEST_F(CredentialsTest, UsesTheFileIfTheHelperHasNothing) {
  MakeHelper("store", "echo 'credentials not found in native keychain'; exit 1");
  WriteConfig(R"({"credsStore": "store"})");
  EXPECT_TRUE(Find().IsAnonymous());
  WriteConfig(R"({"credsStore": "store",
                  "auths": {"r.example:5000": {"username": "joe", "password": "p"}}})");
  EXPECT_EQ(Find().username, "joe");
}

TEST_F(CredentialsTest, RefusesAHelperThatIsNotOnThePath) {
  WriteConfig(R"({"credsStore": "absent"})");
  ExpectError(ErrorKind::kInvalidConfig,
              {"'docker-credential-absent'", config_.native(), "not on the PATH", "install it"});
  for (const std::string name : {"../x", "/bin/sh", "x/../../bin/sh", "x\\u0000y"}) {
    WriteConfig(R"({"credsStore": ")" + name + R"("})");
    ExpectError(ErrorKind::kInvalidConfig, {config_.native(), "not a plain file name"});
  }
}

TEST_F(CredentialsTest, ReportsWhyAHelperFails) {
  WriteConfig(R"({"credsStore": "store"})");
  MakeHelper("store", "echo 'the key ring is locked'; exit 3");
  ExpectError(ErrorKind::kIO, {"docker-credential-store", "'r.example:5000'", "exit status 3",
                               "'the key ring is locked'", "docker login"});
  MakeHelper("store", R"(echo '{"Username":"joe","Secret":"secret"}'; exit 1)");
  ExpectError(ErrorKind::kIO, {"exit status 1"});
}

TEST_F(CredentialsTest, RefusesAMalformedAnswerWithoutQuotingFromIt) {
  WriteConfig(R"({"credsStore": "store"})");
  MakeHelper("store", R"(echo '{"Username":"joe","Secret":"secret')");
  ExpectError(ErrorKind::kIO, {"docker-credential-store", "malformed", "it is not JSON"});
  MakeHelper("store", R"(echo '{"Username":"joe"}')");
  ExpectError(ErrorKind::kIO, {"docker-credential-store", "malformed", "Secret"});
  MakeHelper("store", R"(echo '{"Username":["secret"],"Secret":"secret"}')");
  ExpectError(ErrorKind::kIO, {"malformed", "Username"});
  MakeHelper("store", R"(echo '"secret"')");
  ExpectError(ErrorKind::kIO, {"malformed"});
  MakeHelper("store", "exit 0");
  ExpectError(ErrorKind::kIO, {"malformed", "it is not JSON"});
}

TEST_F(CredentialsTest, RefusesAnEndlessAnswer) {
  WriteConfig(R"({"credsStore": "store"})");
  MakeHelper("store", R"(printf '{"Username":"joe","Secret":"'; head -c 10000000 /dev/zero)");
  ExpectError(ErrorKind::kIO, {"docker-credential-store", "longer than"});
}

TEST_F(CredentialsTest, EndsAHelperThatHangs) {
  WriteConfig(R"({"credsStore": "store"})");
  MakeHelper("store", "echo $$ > '" + (dir_ / "pid").native() + "'; sleep 1000");
  const auto [ctx, cancel] = test::Soon().WithCancel();
  std::thread canceller([&, cancel = cancel] {
    while (!fs::exists(dir_ / "pid") || test::ReadFile(dir_ / "pid").empty()) {
      std::this_thread::yield();
    }
    cancel();
  });
  EXPECT_MSB_ERROR(Find({}, ctx), ErrorKind::kCancelled, "cancelled");
  canceller.join();
  EXPECT_FALSE(base::ProcessIdentity::Of(std::stoi(test::ReadFile(dir_ / "pid"))));
}

TEST_F(CredentialsTest, AHelperHasLimitedTime) {
  MakeHelper("slow", "sleep 1000");
  const CredentialHelper helper{
      .name = "slow", .config = config_.native(), .time = std::chrono::milliseconds(100)};
  EXPECT_MSB_ERROR(helper.Get(test::Soon(), kRegistry), ErrorKind::kIO, "docker-credential-slow",
                   "has not answered within 1 s", "get");
}

}  // namespace
}  // namespace msb::registry
