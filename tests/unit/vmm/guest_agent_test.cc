// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/guest_agent.h"

#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/base/text.h"
#include "tests/support/event.h"
#include "tests/unit/vmm/scripted_agent.h"

namespace msb::vmm {
namespace {

using base::Json;
using std::chrono::milliseconds;
using test::AgentConnection;
using test::ScriptedAgent;
using test::Soon;

// Long enough for a reply that does come, and short enough to wait for one that does not.
constexpr auto kShort = milliseconds(100);

GuestAgent AgentFor(ScriptedAgent& peer, milliseconds reply_timeout = kAgentReplyTimeout) {
  return GuestAgent(peer.TakeClient(), {.sandbox = "box", .reply_timeout = reply_timeout});
}

// Returns a text repeated up to about this number of bytes.
std::string Repeated(const std::string& text, std::size_t bytes) {
  std::string repeated;
  while (repeated.size() < bytes) repeated += text;
  return repeated;
}

// Expects that a command fails if the agent replies with these bytes and then closes.
void ExpectRefused(const std::string& bytes, const std::string& why,
                   const std::string& command = "guest-info") {
  SCOPED_TRACE(bytes.substr(0, 100));
  ScriptedAgent peer([&](AgentConnection& self) {
    self.Synchronize();
    self.Take();
    self.Send(bytes);
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_MSB_ERROR(agent.Execute(Soon(), command), ErrorKind::kIO, "sandbox 'box'", why);
}

TEST(GuestAgentTest, ExecutesCommandsAfterASynchronization) {
  ScriptedAgent peer([](AgentConnection& self) {
    self.Synchronize();
    EXPECT_EQ(self.Expect("guest-exec-status"), (Json{{"pid", 7}}));
    self.Return({{"exited", false}});
    EXPECT_EQ(self.Expect("guest-ping"), Json::object());
    self.Return(Json::object());
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_EQ(agent.Execute(Soon(), "guest-exec-status", {{"pid", 7}}), (Json{{"exited", false}}));
  EXPECT_EQ(agent.Execute(Soon(), "guest-ping"), Json::object());
}

TEST(GuestAgentTest, BeginsWithAByteThatEndsAnUnfinishedCommand) {
  ScriptedAgent peer([](AgentConnection& self) {
    EXPECT_EQ(self.TakeByte(), '\xff');
    self.Synchronize();
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer);
  agent.Sync(Soon(), kAgentReplyTimeout);
}

TEST(GuestAgentTest, SkipsWhatAnEarlierClientHasLeft) {
  for (const std::string& left : {
           std::string("{\"return\": {}}\n"),
           std::string("{\"return\": {\"out-da"),
           std::string("\xff{\"return\": 1}\n\xff{\"return\": 2}\n"),
           std::string("\xff{\"return\": 12"),
           std::string("{\"error\": {\"class\": \"GenericError\", \"desc\": \"\"}}\n"),
           std::string("\xff\xff\n\n\xff{}\n"),
           std::string(3 << 20, 'A') + "\"}}\n",
           '\xff' + std::string(3 << 20, '['),
       }) {
    SCOPED_TRACE(left.substr(0, 40));
    ScriptedAgent peer([&](AgentConnection& self) {
      self.Send(left);
      self.Synchronize();
      self.Expect("guest-ping");
      self.Return(7);
      self.AwaitEnd();
    });
    GuestAgent agent = AgentFor(peer);
    EXPECT_EQ(agent.Execute(Soon(), "guest-ping"), 7);
  }
}

TEST(GuestAgentTest, AReplyMayComeInPieces) {
  ScriptedAgent peer([](AgentConnection& self) {
    const Json command = self.Take();
    const std::string reply = fmt::format("\xff{{\"return\": {}}}\n",
                                          command.at("arguments").at("id").get<std::uint64_t>());
    for (const char byte : reply) self.Send({byte});
    self.Expect("guest-get-host-name");
    for (const char byte : std::string("{\"return\": {\"host-name\": \"\xc3\xa4\"}}\r\n")) {
      self.Send({byte});
    }
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_EQ(agent.Execute(Soon(), "guest-get-host-name"), (Json{{"host-name", "\xc3\xa4"}}));
}

TEST(GuestAgentTest, AReplyMayHaveTheLargestSize) {
  const std::string text(kMaxAgentMessageBytes - std::string("{\"return\":\"\"}").size(), 'A');
  ScriptedAgent peer([&](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-exec-status");
    self.Send("{\"return\":\"" + text + "\"}\n");
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_TRUE(agent.Execute(Soon(), "guest-exec-status") == text);
}

// Only the output of a command may be long, so that no other reply can delay the call by arriving
// in many parts.
TEST(GuestAgentTest, RefusesAReplyThatIsTooLong) {
  for (const auto& [command, limit] : {std::pair("guest-exec-status", kMaxAgentMessageBytes),
                                       std::pair("guest-fsfreeze-freeze", kMaxShortReplyBytes),
                                       std::pair("guest-exec", kMaxShortReplyBytes)}) {
    ScriptedAgent peer([](AgentConnection& self) {
      self.Synchronize();
      self.Take();
      const std::string part(1 << 14, 'A');
      while (self.TrySend(part)) {
      }
    });
    GuestAgent agent = AgentFor(peer);
    EXPECT_MSB_ERROR(agent.Execute(Soon(), command), ErrorKind::kIO, "sandbox 'box'",
                     fmt::format("it sent a message of more than {} bytes", limit), "restart it");
  }
}

TEST(GuestAgentTest, RefusesMalformedReplies) {
  ExpectRefused("garbage\n", "malformed reply to guest-info: ");
  ExpectRefused("\n", "malformed");
  ExpectRefused(std::string("\0\n", 2), "malformed");
  ExpectRefused("{\"return\": \"\xff\"}\n", "malformed");
  ExpectRefused("{\"return\": 1, \"return\": 2}\n", "malformed");
  ExpectRefused(std::string(50'000, '[') + "\n", "nested");
  const std::string status = "guest-exec-status";
  ExpectRefused(std::string(1 << 20, '[') + std::string(1 << 20, ']') + "\n", "nested", status);
  ExpectRefused("{\"return\": [" + std::string(1 << 20, ',') + "]}\n", "malformed", status);
  ExpectRefused("[]\n", "neither a result nor an error");
  ExpectRefused("5\n", "neither a result nor an error");
  ExpectRefused("{}\n", "neither a result nor an error");
  ExpectRefused("{\"event\": \"SHUTDOWN\"}\n", "neither a result nor an error");
  ExpectRefused("{\"return\": {}, \"error\": {}}\n", "neither a result nor an error");
}

TEST(GuestAgentTest, LimitsTheNumberOfValuesInAReply) {
  std::string many = "{\"return\": [0";
  for (std::size_t i = 0; i <= base::kMaxJsonValues; ++i) many += ",0";
  ExpectRefused(many + "]}\n", "values", "guest-exec-status");
}

TEST(GuestAgentTest, ReportsTheEndOfTheSandbox) {
  const std::vector<test::AgentScript> scripts = {
      [](AgentConnection&) {},
      [](AgentConnection& self) { self.Take(); },
      [](AgentConnection& self) { self.Send("\xff{\"return\": "); },
      [](AgentConnection& self) { self.Synchronize(); },
      [](AgentConnection& self) {
        self.Synchronize();
        self.Take();
      },
      [](AgentConnection& self) {
        self.Synchronize();
        self.Take();
        self.Send("{\"return\": {}}");  // The line does not end.
      },
  };
  for (const test::AgentScript& script : scripts) {
    ScriptedAgent peer(script);
    GuestAgent agent = AgentFor(peer);
    EXPECT_MSB_ERROR(agent.Execute(Soon(), "guest-ping"), ErrorKind::kIO,
                     "sandbox 'box' ended while its guest agent was in use", "console.log");
  }
}

TEST(GuestAgentTest, AGuestWithoutAnAgentIsReported) {
  ScriptedAgent peer([](AgentConnection& self) {
    while (!self.Take().is_null()) {
    }
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_MSB_ERROR(agent.Sync(Soon(), kShort), ErrorKind::kUnsupportedOperation,
                   "the guest agent of sandbox 'box' did not answer within 100 ms; install "
                   "qemu-guest-agent in the guest and start it");
}

TEST(GuestAgentTest, AnythingButASynchronizationDoesNotCountAsAnAnswer) {
  const std::vector<std::function<std::string(std::uint64_t id)>> answers = {
      [](std::uint64_t id) { return fmt::format("{{\"return\": {}}}\n", id); },
      [](std::uint64_t id) { return fmt::format("\xff{{\"return\": {}}}\n", id + 1); },
      [](std::uint64_t id) { return fmt::format("\xff{{\"return\": \"{}\"}}\n", id); },
      [](std::uint64_t id) { return fmt::format("\xff{{\"return\": {}, \"x\": 1}}\n", id); },
      [](std::uint64_t id) { return fmt::format("\xff[{{\"return\": {}}}]\n", id); },
      [](std::uint64_t) { return std::string("login: \xff\xff\n"); },
      [](std::uint64_t) { return "\xff" + std::string(1 << 17, '[') + "\n"; },
      [](std::uint64_t) {
        return std::string("{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}}\n");
      },
  };
  for (const auto& answer : answers) {
    SCOPED_TRACE(answer(1).substr(0, 60));
    ScriptedAgent peer([&](AgentConnection& self) {
      self.Send(answer(self.Take().at("arguments").at("id").get<std::uint64_t>()));
      self.AwaitEnd();
    });
    GuestAgent agent = AgentFor(peer);
    EXPECT_MSB_ERROR(agent.Sync(Soon(), kShort), ErrorKind::kUnsupportedOperation, "sandbox 'box'",
                     "install qemu-guest-agent");
  }
}

TEST(GuestAgentTest, SaysThatSomethingElseAnsweredOnThePort) {
  ScriptedAgent peer([&](AgentConnection& self) {
    self.Send("12345\xff{}\n");
    self.Take();
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_MSB_ERROR(agent.Sync(Soon(), kShort), ErrorKind::kUnsupportedOperation,
                   "did not answer within 100 ms, but its port sent 7 bytes of other data");
}

TEST(GuestAgentTest, AFloodIsNotWaitedOut) {
  for (const std::string part : {"x", "\xff", "\xff\n", "\xff{}\n", "\xffx", "\n"}) {
    SCOPED_TRACE(base::Quoted(part));
    ScriptedAgent peer([&](AgentConnection& self) {
      const std::string flood = Repeated(part, 1 << 16);
      while (self.TrySend(flood)) {
      }
    });
    GuestAgent agent = AgentFor(peer);
    EXPECT_MSB_ERROR(agent.Sync(Soon(), kShort), ErrorKind::kUnsupportedOperation, "sandbox 'box'");
    EXPECT_MSB_ERROR(agent.Sync(Context::Background().WithTimeout(kShort), kAgentReplyTimeout),
                     ErrorKind::kCancelled, "deadline exceeded");
    const auto [ctx, cancel] = Soon().WithCancel();
    std::thread other(cancel);
    EXPECT_MSB_ERROR(agent.Sync(ctx, kAgentReplyTimeout), ErrorKind::kCancelled, "cancelled");
    other.join();
  }
}

// A guest that has sent much before its agent starts delays the call only by what has to be read.
TEST(GuestAgentTest, TheAnswerIsFoundBehindAFlood) {
  for (const std::string part : {"x", "\xff", "\xff\n"}) {
    SCOPED_TRACE(base::Quoted(part));
    ScriptedAgent peer([&](AgentConnection& self) {
      self.Send(Repeated(part, 1 << 20));
      while (self.Synchronize()) {
      }
    });
    GuestAgent agent = AgentFor(peer);
    agent.Sync(Soon(), kAgentReplyTimeout);
  }
}

TEST(GuestAgentTest, SynchronizesAgainIfTheFirstRequestIsLost) {
  ScriptedAgent peer([](AgentConnection& self) {
    const Json lost = self.Take();
    EXPECT_EQ(lost.at("execute"), "guest-sync-delimited");
    self.Synchronize();
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer);
  agent.Sync(Soon(), kAgentReplyTimeout);
}

TEST(GuestAgentTest, ALateReplyIsNotTakenForThatOfTheNextCommand) {
  const auto [ctx, cancel] = Soon().WithCancel();
  ScriptedAgent peer([cancel = cancel](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-exec");
    cancel();
    const Json sync = self.Take();
    self.Return("late");
    self.Send('\xff' + Json{{"return", sync.at("arguments").at("id")}}.dump() + "\n");
    self.Expect("guest-ping");
    self.Return("done");
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_MSB_ERROR(agent.Execute(ctx, "guest-exec"), ErrorKind::kCancelled, "cancelled");
  EXPECT_EQ(agent.Execute(Soon(), "guest-ping"), "done");
}

TEST(GuestAgentTest, AnAgentThatStopsAnsweringIsReported) {
  ScriptedAgent peer([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-exec");
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer, kShort);
  EXPECT_MSB_ERROR(agent.Execute(Soon(), "guest-exec"), ErrorKind::kIO,
                   "the guest agent of sandbox 'box' did not reply to guest-exec within 100 ms",
                   "restart it");
}

TEST(GuestAgentTest, AnAgentThatDoesNotReadIsReported) {
  test::Event done;
  ScriptedAgent peer([&](AgentConnection& self) {
    self.Synchronize();
    done.Wait();
  });
  GuestAgent agent = AgentFor(peer, kShort);
  const std::string input(8 << 20, 'A');
  EXPECT_MSB_ERROR(agent.Execute(Soon(), "guest-exec", {{"input-data", input}}), ErrorKind::kIO,
                   "did not reply to guest-exec within 100 ms");
  EXPECT_MSB_ERROR(agent.Execute(Soon(), "guest-ping"), ErrorKind::kUnsupportedOperation,
                   "did not answer within 100 ms");
  done.Set();
}

TEST(GuestAgentTest, AnAgentThatEndsIsNoticed) {
  std::atomic<int> checks = 0;
  ScriptedAgent peer([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-exec");
    self.AwaitEnd();
  });
  GuestAgent agent(peer.TakeClient(), {.sandbox = "box", .is_port_open = [&](const Context&) {
                                         return ++checks < 2;
                                       }});
  EXPECT_MSB_ERROR(agent.Execute(Soon(), "guest-exec"), ErrorKind::kIO,
                   "the guest agent of sandbox 'box' ended before it replied to guest-exec",
                   "start it again");
  EXPECT_EQ(checks, 2);
}

TEST(GuestAgentTest, ReportsErrorsOfTheAgent) {
  ScriptedAgent peer([](AgentConnection& self) {
    self.Synchronize();
    self.Take();
    self.Refuse("GenericError", "Failed to\x1b[31m execute");
    self.Take();
    self.Send("{\"error\": 5}\n");
    self.Take();
    self.Return(7);
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_MSB_ERROR(
      agent.Execute(Soon(), "guest-exec"), ErrorKind::kIO,
      "the guest agent of sandbox 'box' refused guest-exec: ", "Failed to\\x1b[31m execute");
  EXPECT_MSB_ERROR(agent.Execute(Soon(), "guest-exec"), ErrorKind::kIO, "refused guest-exec");
  EXPECT_EQ(agent.Execute(Soon(), "guest-ping"), 7);
}

TEST(GuestAgentTest, ACommandThatIsNotPermittedIsUnsupported) {
  for (const auto& [error_class, description] :
       {std::pair("CommandNotFound", "The command guest-exec has not been found"),
        std::pair("GenericError", "Command guest-exec has been disabled")}) {
    ScriptedAgent peer([&](AgentConnection& self) {
      self.Synchronize();
      self.Expect("guest-exec");
      self.Refuse(error_class, description);
      self.Expect("guest-fsfreeze-status");
      self.Refuse("CommandNotFound", "");
      self.AwaitEnd();
    });
    GuestAgent agent = AgentFor(peer);
    EXPECT_MSB_ERROR(agent.Execute(Soon(), "guest-exec"), ErrorKind::kUnsupportedOperation,
                     "sandbox 'box'", description, "/etc/qemu/qemu-ga.conf");
  }
}

TEST(GuestAgentTest, ThawsWhatAClientThatDiedHasFrozen) {
  ScriptedAgent peer([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-exec");
    self.Refuse("CommandNotFound",
                "Command guest-exec has been disabled: the agent is in frozen state");
    self.ReportState("frozen");
    self.Expect("guest-fsfreeze-thaw");
    self.Return(1);
    self.ReportState("thawed");
    self.Expect("guest-exec");
    self.Return({{"pid", 7}});
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_EQ(agent.Execute(Soon(), "guest-exec"), (Json{{"pid", 7}}));
}

TEST(GuestAgentTest, FreezesAndThaws) {
  ScriptedAgent peer([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-fsfreeze-freeze");
    self.Return(3);
    self.Expect("guest-fsfreeze-thaw");
    self.Return(3);
    self.ReportState("thawed");
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_EQ(agent.Freeze(Soon()), 3U);
  agent.Thaw(Soon());
}

TEST(GuestAgentTest, FreezeBeginsWithThawedFileSystems) {
  ScriptedAgent peer([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-fsfreeze-freeze");
    self.Refuse("CommandNotFound",
                "Command guest-fsfreeze-freeze has been disabled: the agent is in frozen state");
    self.ReportState("frozen");
    self.Expect("guest-fsfreeze-thaw");
    self.Return(1);
    self.ReportState("thawed");
    self.Expect("guest-fsfreeze-freeze");
    self.Return(1);
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_EQ(agent.Freeze(Soon()), 1U);
}

TEST(GuestAgentTest, ThawRepeatsUntilNothingIsFrozen) {
  ScriptedAgent peer([](AgentConnection& self) {
    self.Synchronize();
    for (const char* status : {"frozen", "frozen", "thawed"}) {
      self.Expect("guest-fsfreeze-thaw");
      self.Return(1);
      self.ReportState(status);
    }
    self.AwaitEnd();
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_EQ(agent.Thaw(Soon()), 1U);
}

TEST(GuestAgentTest, ThawReportsThatNothingWasFrozen) {
  ScriptedAgent peer([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-fsfreeze-thaw");
    self.Return(0);
    self.ReportState("thawed");
    self.AwaitEnd();
  });
  EXPECT_EQ(AgentFor(peer).Thaw(Soon()), 0U);
}

TEST(GuestAgentTest, ThawGivesUpOnAnAgentThatNeverThaws) {
  ScriptedAgent peer([](AgentConnection& self) {
    self.Synchronize();
    for (Json command = self.Take(); !command.is_null(); command = self.Take()) {
      self.Return(command.at("execute") == "guest-fsfreeze-thaw" ? Json(0) : Json("frozen"));
    }
  });
  GuestAgent agent = AgentFor(peer);
  EXPECT_MSB_ERROR(agent.Thaw(Soon()), ErrorKind::kIO, "sandbox 'box'", "still frozen",
                   "fsfreeze --unfreeze");
}

TEST(GuestAgentTest, RefusesAnUnknownStateOfTheFileSystems) {
  for (const Json& status : {Json("melting"), Json(5), Json()}) {
    ScriptedAgent peer([&](AgentConnection& self) {
      self.Synchronize();
      self.ReportState(status);
      self.AwaitEnd();
    });
    GuestAgent agent = AgentFor(peer);
    EXPECT_MSB_ERROR(agent.IsFrozen(Soon()), ErrorKind::kIO, "sandbox 'box'", "unknown state");
  }
}

TEST(GuestAgentTest, AnArgumentThatIsNotUtf8IsNotSent) {
  ScriptedAgent peer([](AgentConnection& self) { self.AwaitEnd(); });
  GuestAgent agent = AgentFor(peer);
  EXPECT_MSB_ERROR(agent.Execute(Soon(), "guest-exec", {{"path", "\xff"}}),
                   ErrorKind::kInvalidArgument, "guest-exec", "not UTF-8");
}

}  // namespace
}  // namespace msb::vmm
