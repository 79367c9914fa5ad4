// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/guest_exec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "src/base/base64.h"
#include "src/base/unix_socket.h"
#include "tests/support/event.h"
#include "tests/unit/vmm/scripted_agent.h"

namespace msb::vmm {
namespace {

using base::Json;
using std::chrono::milliseconds;
using test::AgentConnection;
using test::ListeningAgent;
using test::Soon;
using testing::ElementsAre;
using testing::HasSubstr;
using Words = std::vector<std::string>;

constexpr int kPid = 77;

// Calls ExecInGuest with a scripted agent in place of QEMU.
class GuestExecTest : public testing::Test {
 protected:
  // Answers each connection by synchronizing, and then each command by answer(name, arguments).
  void Serve(std::function<Json(const std::string& name, const Json& arguments)> answer) {
    ServeScript([answer = std::move(answer)](AgentConnection& self) {
      while (true) {
        const Json command = self.Take();
        if (command.is_null()) return;
        const std::string name = command.at("execute");
        const Json arguments = command.value("arguments", Json::object());
        if (name == "guest-sync-delimited") {
          self.Send('\xff' + Json{{"return", arguments.at("id")}}.dump() + "\n");
        } else {
          self.Send(answer(name, arguments).dump() + "\n");
        }
      }
    });
  }
  // Serves guest-exec, and guest-exec-status with this value.
  void ServeStatus(const Json& status) {
    Serve([status](const std::string& name, const Json&) {
      return Json{{"return", name == "guest-exec" ? Json{{"pid", kPid}} : status}};
    });
  }
  void ServeScript(test::AgentScript script) {
    agent_.emplace(base::ListenAt(fd_.get(), kAgentSocketFile), std::move(script));
  }

  ExecResult Exec(const Words& command = {"program"}, const ExecOptions& options = {}) {
    return ExecInGuest(Soon(), {fd_.get(), "box"}, command, options, start_timeout_);
  }

  void ExpectBroken(const Json& status, const std::string& why) {
    SCOPED_TRACE(status.dump().substr(0, 100));
    ServeStatus(status);
    EXPECT_MSB_ERROR(Exec(), ErrorKind::kIO, "sandbox 'box'", "'program'", why);
    agent_.reset();
  }

  const test::TempDir dir_;
  const base::UniqueFd fd_ = base::OpenDirectory(dir_.path());
  milliseconds start_timeout_ = kAgentStartTimeout;
  std::optional<ListeningAgent> agent_;
};

TEST_F(GuestExecTest, ReturnsTheExitCodeAndTheOutput) {
  const std::string bytes("\0\xff\n", 3);
  Serve([&](const std::string& name, const Json& arguments) {
    if (name == "guest-exec") {
      EXPECT_EQ(arguments, (Json{{"path", "program"},
                                 {"arg", {"-a", "$b"}},
                                 {"input-data", base::Base64Encode(bytes)},
                                 {"capture-output", true}}));
      return Json{{"return", {{"pid", kPid}}}};
    }
    EXPECT_EQ(name, "guest-exec-status");
    EXPECT_EQ(arguments, (Json{{"pid", kPid}}));
    return Json{{"return",
                 {{"exited", true},
                  {"exitcode", 3},
                  {"out-data", base::Base64Encode(bytes)},
                  {"err-data", base::Base64Encode("err")}}}};
  });
  const ExecResult result = Exec({"program", "-a", "$b"}, {.input = bytes});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.out, bytes);
  EXPECT_EQ(result.err, "err");
}

TEST_F(GuestExecTest, ASignalIsAddedTo128) {
  ServeStatus({{"exited", true}, {"signal", 9}});
  EXPECT_EQ(Exec().exit_code, 137);
}

TEST_F(GuestExecTest, WaitsForTheEndOfTheCommand) {
  std::atomic<int> polls = 0;
  Serve([&](const std::string& name, const Json&) {
    if (name == "guest-exec") return Json{{"return", {{"pid", kPid}}}};
    const bool exited = ++polls == 12;
    Json status = {{"exited", exited}};
    if (exited) status["exitcode"] = 4;
    return Json{{"return", status}};
  });
  EXPECT_EQ(Exec().exit_code, 4);
  EXPECT_EQ(polls, 12);
}

TEST_F(GuestExecTest, OtherClientsMayUseTheAgentMeanwhile) {
  test::Event started;
  std::atomic<bool> is_done = false;
  Serve([&](const std::string& name, const Json&) {
    if (name == "guest-ping") return Json{{"return", Json::object()}};
    if (name == "guest-exec") {
      started.Set();
      return Json{{"return", {{"pid", kPid}}}};
    }
    return Json{{"return", {{"exited", is_done.load()}, {"exitcode", 0}}}};
  });
  std::thread other([&] {
    started.Wait();
    OpenAgent(Soon(), {fd_.get(), "box"}, kAgentStartTimeout)->Execute(Soon(), "guest-ping");
    is_done = true;
  });
  EXPECT_EQ(Exec().exit_code, 0);
  other.join();
}

TEST_F(GuestExecTest, RefusesMalformedResults) {
  ExpectBroken(5, "whether the command has ended");
  ExpectBroken(Json::object(), "whether the command has ended");
  ExpectBroken({{"exited", 1}}, "whether the command has ended");
  ExpectBroken({{"exited", true}}, "no exit code");
  ExpectBroken({{"exited", true}, {"exitcode", -1}}, "impossible value of 'exitcode'");
  ExpectBroken({{"exited", true}, {"exitcode", 256}}, "impossible value of 'exitcode'");
  ExpectBroken({{"exited", true}, {"exitcode", 0.5}}, "impossible value of 'exitcode'");
  ExpectBroken({{"exited", true}, {"exitcode", "0"}}, "impossible value of 'exitcode'");
  ExpectBroken({{"exited", true}, {"signal", 65}}, "impossible value of 'signal'");
  ExpectBroken({{"exited", true}, {"exitcode", 0}, {"out-data", 5}}, "not text");
  ExpectBroken({{"exited", true}, {"exitcode", 0}, {"out-data", "x"}}, "not Base64");
  ExpectBroken({{"exited", true}, {"exitcode", 0}, {"err-data", "AB=="}}, "not Base64");
}

TEST_F(GuestExecTest, OutputThatTheAgentDiscardsIsAnError) {
  for (const char* key : {"out-truncated", "err-truncated"}) {
    ExpectBroken({{"exited", true}, {"exitcode", 0}, {key, true}, {"out-data", "AAAA"}},
                 "wrote more than the guest agent keeps, 16 MiB; let it write to a file");
  }
}

TEST_F(GuestExecTest, RefusesAMalformedProcess) {
  for (const Json& reply :
       {Json(5), Json::object(), Json{{"pid", 0}}, Json{{"pid", -1}}, Json{{"pid", "7"}}}) {
    Serve([&](const std::string&, const Json&) { return Json{{"return", reply}}; });
    EXPECT_MSB_ERROR(Exec(), ErrorKind::kIO, "sandbox 'box'", "'program'", "no process");
    agent_.reset();
  }
}

TEST_F(GuestExecTest, AProgramThatIsAbsentIsAConfigurationError) {
  Serve([](const std::string&, const Json&) {
    return Json{{"error",
                 {{"class", "GenericError"},
                  {"desc", "Failed to execute child process “program” (No such file)"}}}};
  });
  EXPECT_MSB_ERROR(Exec(), ErrorKind::kInvalidConfig, "sandbox 'box'", "cannot execute 'program'",
                   "No such file", "install the program");
}

TEST_F(GuestExecTest, AnAgentThatDoesNotPermitCommandsIsUnsupported) {
  Serve([](const std::string& name, const Json&) {
    return Json{
        {"error",
         {{"class", "CommandNotFound"}, {"desc", "Command " + name + " has been disabled"}}}};
  });
  EXPECT_MSB_ERROR(Exec(), ErrorKind::kUnsupportedOperation, "sandbox 'box'", "guest-exec",
                   "qemu-ga.conf");
}

TEST_F(GuestExecTest, AnAgentThatForgetsTheCommandIsReported) {
  Serve([](const std::string& name, const Json&) {
    if (name == "guest-exec") return Json{{"return", {{"pid", kPid}}}};
    return Json{{"error", {{"class", "GenericError"}, {"desc", "Invalid parameter 'pid'"}}}};
  });
  EXPECT_MSB_ERROR(Exec(), ErrorKind::kIO, "the result of 'program' in sandbox 'box' is lost",
                   "restarted", "run it again");
}

TEST_F(GuestExecTest, AVmThatHasEndedIsReported) {
  EXPECT_MSB_ERROR(Exec(), ErrorKind::kIO, "QEMU of sandbox 'box' has ended", "start the sandbox");
  base::UniqueFd listener = base::ListenAt(fd_.get(), kAgentSocketFile);
  listener.Reset(-1);
  EXPECT_MSB_ERROR(Exec(), ErrorKind::kIO, "QEMU of sandbox 'box' has ended", "start the sandbox");
}

TEST_F(GuestExecTest, AVmThatEndsMeanwhileIsReported) {
  ServeScript([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-exec");
  });
  EXPECT_MSB_ERROR(Exec(), ErrorKind::kIO, "sandbox 'box' ended while its guest agent was in use");
}

TEST_F(GuestExecTest, AVmWithoutAPortIsUnsupported) {
  const base::UniqueFd qmp = base::ListenAt(fd_.get(), kQmpSocketFile);
  EXPECT_MSB_ERROR(Exec(), ErrorKind::kUnsupportedOperation, "sandbox 'box'", "no port",
                   "extra_arguments", "start it again");
}

TEST_F(GuestExecTest, AGuestWithoutAnAgentIsUnsupported) {
  start_timeout_ = milliseconds(50);
  ServeScript([](AgentConnection& self) {
    while (!self.Take().is_null()) {
    }
  });
  EXPECT_MSB_ERROR(Exec(), ErrorKind::kUnsupportedOperation, "sandbox 'box'", "did not answer",
                   "install qemu-guest-agent");
}

TEST_F(GuestExecTest, AnotherClientIsWaitedForUntilTheTimeout) {
  start_timeout_ = milliseconds(50);
  ServeStatus({{"exited", true}, {"exitcode", 0}});
  {
    AgentSession other = OpenAgent(Soon(), {fd_.get(), "box"}, kAgentStartTimeout);
    EXPECT_MSB_ERROR(Exec(), ErrorKind::kUnsupportedOperation, "sandbox 'box'",
                     "in use by another call");
  }
  EXPECT_EQ(Exec().exit_code, 0);
}

TEST_F(GuestExecTest, ACommandThatOutlivesItsContextIsKilled) {
  const auto [ctx, cancel] = Soon().WithCancel();
  std::vector<Json> executed;
  Serve([&, cancel = cancel](const std::string& name, const Json& arguments) {
    if (name == "guest-exec") {
      executed.push_back(arguments);
      return Json{{"return", {{"pid", executed.size()}}}};
    }
    if (executed.size() == 1) cancel();
    const bool has_exited = executed.size() == 2;
    Json status = {{"exited", has_exited}};
    if (has_exited) status["exitcode"] = 0;
    return Json{{"return", status}};
  });
  EXPECT_MSB_ERROR(ExecInGuest(ctx, {fd_.get(), "box"}, {"program"}, {}), ErrorKind::kCancelled,
                   "cancelled");
  agent_.reset();
  ASSERT_EQ(executed.size(), 2U);
  EXPECT_EQ(executed[1].at("path"), "/bin/sh");
  EXPECT_EQ(executed[1].at("arg"), (Json{"-c", "kill -KILL \"$1\"", "sh", "1"}));
}

TEST_F(GuestExecTest, ACancelledCommandIsNotKilledAfterItHasEnded) {
  const auto [ctx, cancel] = Soon().WithCancel();
  std::atomic<int> executed = 0;
  std::atomic<int> polls = 0;
  Serve([&, cancel = cancel](const std::string& name, const Json&) {
    if (name == "guest-exec") return Json{{"return", {{"pid", ++executed}}}};
    if (++polls == 1) cancel();
    Json status = {{"exited", polls > 1}};
    if (polls > 1) status["exitcode"] = 0;
    return Json{{"return", status}};
  });
  EXPECT_MSB_ERROR(ExecInGuest(ctx, {fd_.get(), "box"}, {"program"}, {}), ErrorKind::kCancelled,
                   "cancelled");
  EXPECT_EQ(executed, 1);
}

TEST_F(GuestExecTest, OptionsAreAppliedByAScript) {
  Json executed;
  Serve([&](const std::string& name, const Json& arguments) {
    if (name == "guest-exec") {
      executed = arguments;
      return Json{{"return", {{"pid", kPid}}}};
    }
    // The script reports that it found no such directory.
    const std::string token = executed.at("arg").at(3);
    return Json{{"return",
                 {{"exited", true},
                  {"exitcode", 125},
                  {"err-data", base::Base64Encode(token + " directory\n")}}}};
  });
  EXPECT_MSB_ERROR(Exec({"program"}, {.cwd = "/work"}), ErrorKind::kInvalidConfig, "sandbox 'box'",
                   "no directory '/work'");
  EXPECT_EQ(executed.at("path"), "/bin/sh");
  EXPECT_EQ(executed.at("arg").back(), "program");
}

TEST_F(GuestExecTest, RefusesInputThatTheAgentWouldNotTake) {
  EXPECT_MSB_ERROR(Exec({"program"}, {.input = std::string((32 << 20) + 1, 'x')}),
                   ErrorKind::kInvalidArgument, "33554433 bytes", "at most 33554432", "in parts");
}

TEST_F(GuestExecTest, WaitsNoLongerThanItsContext) {
  ServeScript([](AgentConnection& self) {
    while (!self.Take().is_null()) {
    }
  });
  EXPECT_MSB_ERROR(ExecInGuest(Context::Background().WithTimeout(milliseconds(50)),
                               {fd_.get(), "box"}, {"program"}, {}),
                   ErrorKind::kCancelled, "deadline exceeded");
}

}  // namespace
}  // namespace msb::vmm
