// SPDX-License-Identifier: Apache-2.0
//
// push and pull.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <thread>

#include "tests/program/program_home.h"
#include "tests/program/terminal.h"
#include "tests/support/docker_registry.h"
#include "tests/support/tcp_proxy.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class RegistryProgramTest : public ProgramTest {
 protected:
  RegistryProgramTest() = default;
  explicit RegistryProgramTest(DockerRegistryOptions server) : server_(std::move(server)) {}

  void SetUp() override {
    if (!DockerRegistry::IsInstalled()) GTEST_SKIP() << "docker-registry is not installed";
    registry_.emplace(server_);
    MakeSandbox("base", 1 << 20);
    Output({"create", "clean", "--from", "base", "--integrity"});
  }

  std::string At(const std::string& name) const { return registry_->address() + "/" + name; }

  const std::string other_ = dir_ / "other";
  const DockerRegistryOptions server_;
  std::optional<DockerRegistry> registry_;
};

TEST_F(RegistryProgramTest, PushReportsTheReferenceByDigestAndTheBytes) {
  EXPECT_THAT(Output({"push", "clean", At("web:v1")}),
              AllOf(StartsWith("pushed clean to " + At("web@sha256:")), HasSubstr("(sent 1.0 MiB"),
                    HasSubstr("saved 0 B)\n")));
  const auto document = Document("push", {"push", "clean", At("web:v2")});
  EXPECT_EQ(document["name"], "clean");
  EXPECT_THAT(document["reference"].get<std::string>(), StartsWith(At("web@sha256:")));
  EXPECT_GE(document["bytes_saved"], 1 << 20);
  EXPECT_LT(document["bytes_sent"], 64 << 10);
}

TEST_F(RegistryProgramTest, PullReportsTheSnapshotAndTheBytes) {
  Output({"push", "clean", At("web:v1"), "--with-image", "--level", "1"});
  EXPECT_THAT(Output({"pull", At("web:v1"), "--home", other_}),
              AllOf(StartsWith("pulled " + other_ + "/snapshots/"), HasSubstr("received 1.0 MiB"),
                    // The disk is that of the image.
                    HasSubstr("saved 1.0 MiB)\n")));
  const auto document =
      Document("pull", {"pull", At("web:v1"), "--home", other_, "--dest", dir_ / "there"});
  EXPECT_EQ(document["digest"], Document("inspect", {"inspect", "clean"})["digest"]);
  EXPECT_THAT(document["artifact_path"].get<std::string>(), StartsWith((dir_ / "there").native()));
  EXPECT_GE(document["bytes_received"], 1 << 20);
  EXPECT_EQ(Document("pull", {"pull", At("web:v1"), "--home", other_})["bytes_saved"], 0);
}

TEST_F(RegistryProgramTest, ErrorsOfTheRegistryHaveExitCodes) {
  ProcessResult result = Run({"pull", At("absent")});
  EXPECT_EQ(result.exit_code, kSnapshotNotFoundCode);
  EXPECT_THAT(result.err, AllOf(StartsWith("error: "), HasSubstr(At("absent"))));
  EXPECT_EQ(Run({"push", "clean", "Not A Reference"}).exit_code, 21);
  const std::string reference = At("web");
  registry_->Kill();
  for (const Arguments& arguments :
       {Arguments{"push", "clean", reference}, Arguments{"pull", reference}}) {
    Arguments once = arguments;
    once.insert(once.end(), {"--retries", "0"});
    result = Run(once);
    EXPECT_EQ(result.exit_code, kUnavailableCode);
    EXPECT_THAT(result.err, AllOf(StartsWith("error: "), HasSubstr(registry_->address())));
    EXPECT_EQ(Document("error", once, kUnavailableCode)["error"]["kind"], "RegistryUnavailable");
  }
}

TEST_F(RegistryProgramTest, ABarShowsTheTransfer) {
  Terminal push(120, Command({"push", "clean", At("web")}), options_);
  EXPECT_EQ(push.Wait(), 0);
  EXPECT_THAT(push.output(), HasSubstr("push 100%"));
  EXPECT_THAT(ScreenAfter(push.output()), testing::ElementsAre(StartsWith("pushed clean to ")));
  Terminal pull(120, Command({"pull", At("web"), "--home", other_}), options_);
  EXPECT_EQ(pull.Wait(), 0);
  EXPECT_THAT(pull.output(), HasSubstr("pull 100%"));
}

// Returns the bytes that the files of interrupted pulls occupy.
std::uintmax_t StagedBytes(const fs::path& snapshots) {
  const CommandResult run = RunCommand("du -sc --block-size=1 '" + snapshots.native() +
                                       "'/.msb-pull-*/*/upper.* | tail -n 1");
  return std::strtoull(run.output.c_str(), nullptr, 10);
}

// Ctrl-C keeps what has arrived for the next pull.
TEST_F(RegistryProgramTest, CtrlCDuringAPullKeepsTheStage) {
  constexpr std::uint64_t kChunkBytes = 8 << 20;
  MakeSandbox("big", 2 * kChunkBytes);
  Output({"create", "big", "--from", "big"});
  Output({"push", "big", At("big")});
  // The second chunk does not arrive.
  TcpProxy proxy(registry_->port());
  proxy.After(kChunkBytes * 3 / 2, [&] { proxy.SetStalled(true); });
  Arguments pull = {"pull", proxy.address() + "/big", "--home", other_, "--connections", "1"};
  Terminal terminal(120, Command(pull), options_);
  const fs::path snapshots = other_ + "/snapshots";
  while (StagedBytes(snapshots) < kChunkBytes) std::this_thread::yield();
  terminal.Type(kCtrlC);
  EXPECT_EQ(terminal.Wait(), 130);
  EXPECT_THAT(ScreenAfter(terminal.output()), testing::Contains(HasSubstr("error: cancelled")));
  EXPECT_GE(StagedBytes(snapshots), kChunkBytes);

  pull[1] = At("big");
  const auto document = Document("pull", pull);
  EXPECT_GE(document["bytes_saved"], kChunkBytes);
  EXPECT_LT(document["bytes_received"], kChunkBytes + (64 << 10));
  EXPECT_EQ(std::distance(fs::directory_iterator(snapshots), {}), 1);
}

class PasswordProgramTest : public RegistryProgramTest {
 protected:
  PasswordProgramTest() : RegistryProgramTest({.user = "ada", .password = "correct horse"}) {}
};

TEST_F(PasswordProgramTest, ReadsThePasswordFromStandardInput) {
  const ProcessResult push =
      Run({"push", "clean", At("web"), "--username", "ada", "--password-stdin"}, "correct horse\n");
  EXPECT_EQ(push.exit_code, 0) << push.err;
  const ProcessResult pull =
      Run({"pull", At("web"), "--home", other_, "--username", "ada", "--password-stdin"},
          "correct horse");
  EXPECT_EQ(pull.exit_code, 0) << pull.err;
}

TEST_F(PasswordProgramTest, RefusesAWrongPasswordWithoutShowingIt) {
  const ProcessResult wrong =
      Run({"push", "clean", At("web"), "--username", "ada", "--password-stdin"}, "wrong staple\n");
  EXPECT_EQ(wrong.exit_code, kUnauthorizedCode);
  EXPECT_THAT(wrong.err, AllOf(HasSubstr("username"), Not(HasSubstr("staple"))));
  EXPECT_EQ(Document("error", {"pull", At("web")}, kUnauthorizedCode)["error"]["kind"],
            "RegistryUnauthorized");
  EXPECT_EQ(Run({"push", "clean", At("web"), "--password-stdin"}).exit_code, kUsageCode);
}

}  // namespace
}  // namespace msb::test
