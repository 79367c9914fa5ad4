// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qmp_client.h"

#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/base/process.h"
#include "src/base/spawn.h"
#include "src/base/unix_socket.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kGreeting =
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}, "
    "\"capabilities\": [\"oob\"]}}\r\n";

std::string Event(const std::string& name, const std::string& data = "{}") {
  return fmt::format(
      "{{\"timestamp\": {{\"seconds\": 1, \"microseconds\": 2}}, \"event\": \"{}\", "
      "\"data\": {}}}\r\n",
      name, data);
}

// The other side of a connection: a thread that runs a script.
class Server {
 public:
  using Script = std::function<void(Server&)>;

  explicit Server(Script script) {
    std::array<int, 2> fds{};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()) != 0) {
      ADD_FAILURE() << "no sockets";
    }
    client_.Reset(fds[0]);
    socket_.Reset(fds[1]);
    thread_ = std::thread([this, script = std::move(script)] {
      script(*this);
      Close();
    });
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() { thread_.join(); }

  base::UniqueFd TakeClient() { return std::move(client_); }

  // For scripts. Ignores errors, because the client may have stopped receiving.
  void Send(const std::string& bytes) { TrySend(bytes); }
  // Returns false if the client has closed the connection.
  bool TrySend(const std::string& bytes) {
    return base::SendAll(test::Soon(), socket_.get(), bytes);
  }
  void Close() { socket_.Reset(-1); }
  // Returns the next command, or null at the end of the stream.
  base::Json Take() {
    std::string line;
    std::array<char, 1> byte{};
    while (!line.ends_with('\n')) {
      if (base::ReceiveSome(test::Soon(), socket_.get(), byte) == 0) return nullptr;
      line += byte[0];
    }
    return base::ParseJson(line);
  }
  void Answer(const base::Json& command, const base::Json& result) {
    Send(base::Json{{"return", result}, {"id", command.at("id")}}.dump() + "\r\n");
  }
  // Sends the greeting, and answers the first command.
  void Negotiate() {
    Send(kGreeting);
    const base::Json command = Take();
    EXPECT_EQ(command.at("execute"), "qmp_capabilities");
    Answer(command, base::Json::object());
  }

 private:
  base::UniqueFd client_;
  base::UniqueFd socket_;
  std::thread thread_;
};

// Runs a client against a server that sends bytes after the negotiation, in answer to a command,
// and then closes. Returns the error of the command, which must be of this kind.
std::string FailureAfter(const std::string& bytes, ErrorKind kind = ErrorKind::kInvalidConfig) {
  Server server([&](Server& self) {
    self.Negotiate();
    self.Take();
    self.Send(bytes);
  });
  QmpClient client(test::Soon(), server.TakeClient());
  try {
    client.Execute(test::Soon(), "query-status");
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(QmpClientTest, ExecutesCommands) {
  Server server([](Server& self) {
    self.Negotiate();
    const base::Json first = self.Take();
    EXPECT_EQ(first.at("execute"), "query-status");
    EXPECT_FALSE(first.contains("arguments"));
    self.Answer(first, {{"running", true}});
    const base::Json second = self.Take();
    EXPECT_EQ(second.at("arguments"), (base::Json{{"job-id", "backup"}}));
    EXPECT_NE(second.at("id"), first.at("id"));
    self.Answer(second, base::Json::array());
  });
  QmpClient client(test::Soon(), server.TakeClient());
  EXPECT_EQ(client.Execute(test::Soon(), "query-status"), (base::Json{{"running", true}}));
  EXPECT_EQ(client.Execute(test::Soon(), "job-cancel", {{"job-id", "backup"}}),
            base::Json::array());
  EXPECT_TRUE(client.AwaitClose(test::Soon()));
}

TEST(QmpClientTest, MessagesMayComeInPieces) {
  Server server([](Server& self) {
    for (const char byte : std::string(kGreeting)) self.Send({byte});
    self.Answer(self.Take(), base::Json::object());
    const std::string reply =
        fmt::format("{{\"return\": \"\xc3\xa4\", \"id\": {}}}\n", self.Take().at("id").dump());
    for (const char byte : reply) self.Send({byte});
  });
  QmpClient client(test::Soon(), server.TakeClient());
  EXPECT_EQ(client.Execute(test::Soon(), "query-name"), "\xc3\xa4");
}

TEST(QmpClientTest, MessagesMayComeTogether) {
  Server server([](Server& self) {
    self.Send(kGreeting + Event("EARLY"));
    self.Answer(self.Take(), base::Json::object());
    const base::Json command = self.Take();
    self.Send(Event("STOP") + Event("JOB_STATUS_CHANGE", "{\"id\": \"backup\"}") +
              fmt::format("{{\"return\": 7, \"id\": {}}}\n", command.at("id").dump()) +
              Event("RESUME") + Event("SHUTDOWN", "{\"guest\": true}"));
  });
  std::vector<std::string> events;
  QmpClient client(test::Soon(), server.TakeClient(),
                   [&](const std::string& name, const base::Json& data) {
                     events.push_back(name + data.dump());
                   });
  EXPECT_THAT(events, ElementsAre("EARLY{}"));
  EXPECT_EQ(client.Execute(test::Soon(), "stop"), 7);
  EXPECT_THAT(events, ElementsAre("EARLY{}", "STOP{}", "JOB_STATUS_CHANGE{\"id\":\"backup\"}"));
  EXPECT_TRUE(client.AwaitClose(test::Soon()));
  EXPECT_THAT(events, ElementsAre("EARLY{}", "STOP{}", "JOB_STATUS_CHANGE{\"id\":\"backup\"}",
                                  "RESUME{}", "SHUTDOWN{\"guest\":true}"));
}

TEST(QmpClientTest, AFailedCommandEndsNothing) {
  Server server([](Server& self) {
    self.Negotiate();
    self.Send(
        fmt::format("{{\"error\": {{\"class\": \"CommandNotFound\", \"desc\": \"The command "
                    "no-such has not been found\"}}, \"id\": {}}}\r\n",
                    self.Take().at("id").dump()));
    self.Send(fmt::format("{{\"error\": 5, \"id\": {}}}\r\n", self.Take().at("id").dump()));
    self.Answer(self.Take(), 1);
  });
  QmpClient client(test::Soon(), server.TakeClient());
  EXPECT_MSB_ERROR(client.Execute(test::Soon(), "no-such"), ErrorKind::kIO,
                   "QEMU refused no-such: CommandNotFound: The command no-such has not been found",
                   "see qemu.log");
  EXPECT_MSB_ERROR(client.Execute(test::Soon(), "no-such"), ErrorKind::kIO,
                   "QEMU refused no-such: ", "see qemu.log");
  EXPECT_EQ(client.Execute(test::Soon(), "query-status"), 1);
}

TEST(QmpClientTest, AReplyOfMegabytesIsTaken) {
  std::string text;
  Server server([&](Server& self) {
    self.Negotiate();
    const base::Json command = self.Take();
    // Together with the rest of its line, exactly as long as allowed.
    const std::string frame = base::Json{{"return", ""}, {"id", command.at("id")}}.dump() + "\r";
    text.assign(kMaxQmpMessageBytes - frame.size(), 'x');
    self.Answer(command, text);
  });
  QmpClient client(test::Soon(), server.TakeClient());
  const base::Json result = client.Execute(test::Soon(), "query-qmp-schema");
  EXPECT_TRUE(result == text);
}

TEST(QmpClientTest, RefusesMalformedMessages) {
  EXPECT_THAT(FailureAfter("garbage\r\n"), HasSubstr("invalid JSON"));
  EXPECT_THAT(FailureAfter("\r\n"), HasSubstr("invalid JSON"));
  EXPECT_THAT(FailureAfter("[]\r\n"), HasSubstr("not a JSON object"));
  EXPECT_THAT(FailureAfter(std::string("\0\n", 2)), HasSubstr("NUL"));
  EXPECT_THAT(FailureAfter("{\"return\": \"\xff\", \"id\": 2}\n"), HasSubstr("invalid JSON"));
  EXPECT_THAT(FailureAfter(std::string(100'000, '[') + "\n"), HasSubstr("nested"));
  EXPECT_THAT(FailureAfter("{}\n"), HasSubstr("neither a reply nor an event"));
  EXPECT_THAT(FailureAfter("{\"event\": 5}\n"), HasSubstr("without a name"));
  EXPECT_THAT(FailureAfter(std::string(kMaxQmpMessageBytes + 1, ' ')), HasSubstr("more than"));
  EXPECT_THAT(FailureAfter(std::string(kMaxQmpMessageBytes + 1, ' ') + "\n"),
              HasSubstr("more than"));
}

TEST(QmpClientTest, RefusesRepliesToNoCommand) {
  for (const char* id :
       {"", ", \"id\": \"2\"", ", \"id\": -2", ", \"id\": null", ", \"id\": 2.0"}) {
    EXPECT_THAT(FailureAfter(fmt::format("{{\"return\": {{}}{}}}\r\n", id)),
                HasSubstr("does not say which command it answers"));
    EXPECT_THAT(FailureAfter(fmt::format("{{\"error\": {{}}{}}}\r\n", id)),
                HasSubstr("does not say which command it answers"));
  }
}

// QEMU sends the reply to a command even if the client that sent it was killed.
TEST(QmpClientTest, SkipsRepliesToAnEarlierClient) {
  const std::string late = "{\"return\": \"late\", \"id\": 7}\r\n";
  Server server([&](Server& self) {
    self.Send(late);
    self.Send(kGreeting);
    const base::Json first = self.Take();
    self.Send(late);
    self.Answer(first, base::Json::object());
    const base::Json second = self.Take();
    self.Send("{\"error\": {\"class\": \"GenericError\"}, \"id\": 8}\r\n");
    self.Answer(second, "own");
    self.Send(late);
  });
  QmpClient client(test::Soon(), server.TakeClient());
  EXPECT_EQ(client.Execute(test::Soon(), "query-status"), "own");
  EXPECT_TRUE(client.AwaitClose(test::Soon()));
}

TEST(QmpClientTest, AFloodOfOtherRepliesIsNotWaitedOut) {
  for (const std::string& begin : {std::string(), std::string(kGreeting)}) {
    Server server([&](Server& self) {
      self.Send(begin);
      while (self.TrySend("{\"return\": {}, \"id\": 7}\r\n")) {
      }
    });
    EXPECT_MSB_ERROR(QmpClient(Context::Background().WithTimeout(std::chrono::milliseconds(70)),
                               server.TakeClient()),
                     ErrorKind::kCancelled, "deadline exceeded");
  }
}

TEST(QmpClientTest, NothingIsSentOnAConnectionThatWasRefused) {
  Server server([](Server& self) {
    self.Negotiate();
    self.Take();
    self.Send("garbage\n");
    EXPECT_TRUE(self.Take().is_null());
  });
  QmpClient client(test::Soon(), server.TakeClient());
  EXPECT_MSB_ERROR(client.Execute(test::Soon(), "stop"), ErrorKind::kInvalidConfig,
                   "it sent a malformed message", "set Config::qemu.binary to QEMU");
  EXPECT_MSB_ERROR(client.Execute(test::Soon(), "stop"), ErrorKind::kIO,
                   "the control connection to QEMU was closed after an error", "connect again");
  EXPECT_MSB_ERROR(client.AwaitClose(test::Soon()), ErrorKind::kIO,
                   "the control connection to QEMU was closed after an error", "connect again");
}

TEST(QmpClientTest, TheOtherSideMayCloseAtAnyStep) {
  const std::string greeting = kGreeting;
  const std::vector<Server::Script> scripts = {
      [](Server&) {},
      [&](Server& self) { self.Send(greeting.substr(0, 20)); },
      [&](Server& self) { self.Send(greeting); },
      [&](Server& self) {
        self.Send(greeting);
        self.Take();
      },
      [&](Server& self) {
        self.Send(greeting);
        self.Take();
        self.Send("{\"return\": {}, \"id\": 1}");  // The line does not end.
      },
  };
  for (const Server::Script& script : scripts) {
    Server server(script);
    EXPECT_MSB_ERROR(QmpClient(test::Soon(), server.TakeClient()), ErrorKind::kIO,
                     "QEMU has ended or closed its control connection", "see qemu.log");
  }
  EXPECT_THAT(FailureAfter("", ErrorKind::kIO), HasSubstr("closed"));
  EXPECT_THAT(FailureAfter("{\"return\": {}, ", ErrorKind::kIO), HasSubstr("closed"));
  EXPECT_THAT(FailureAfter(Event("SHUTDOWN"), ErrorKind::kIO), HasSubstr("closed"));
}

TEST(QmpClientTest, RefusesAServerWithoutAGreeting) {
  for (const std::string& first : {std::string("{\"return\": {}, \"id\": \"a\"}\n"), Event("STOP"),
                                   std::string("SSH-2.0-OpenSSH_9.2\r\n")}) {
    Server server([&](Server& self) { self.Send(first); });
    EXPECT_MSB_ERROR(QmpClient(test::Soon(), server.TakeClient()), ErrorKind::kInvalidConfig,
                     "the program that answers is not QEMU", "it sent ",
                     "set Config::qemu.binary to QEMU");
  }
}

TEST(QmpClientTest, WaitsNoLongerThanItMay) {
  Server silent([](Server& self) { EXPECT_TRUE(self.Take().is_null()); });
  EXPECT_MSB_ERROR(QmpClient(Context::Background().WithTimeout(std::chrono::milliseconds(70)),
                             silent.TakeClient()),
                   ErrorKind::kCancelled, "deadline exceeded");
}

TEST(QmpClientTest, ACancelledCommandLeavesTheConnectionUsable) {
  const auto [ctx, cancel] = test::Soon().WithCancel();
  Server server([cancel = cancel](Server& self) {
    self.Negotiate();
    const base::Json slow = self.Take();
    cancel();
    const base::Json next = self.Take();
    EXPECT_EQ(next.at("execute"), "quit");
    self.Answer(slow, "late");
    self.Answer(next, "done");
    self.Answer(slow, "twice");
    self.Take();
  });
  QmpClient client(test::Soon(), server.TakeClient());
  EXPECT_MSB_ERROR(client.Execute(ctx, "slow"), ErrorKind::kCancelled, "cancelled");
  EXPECT_EQ(client.Execute(test::Soon(), "quit"), "done");
  EXPECT_MSB_ERROR(client.Execute(test::Soon(), "stop"), ErrorKind::kIO,
                   "closed its control connection before it answered stop", "see qemu.log");
}

TEST(QmpClientTest, AFloodOfEventsIsNotWaitedOut) {
  Server server([](Server& self) {
    self.Negotiate();
    self.Take();
    while (self.TrySend(Event("RTC_CHANGE"))) {
    }
  });
  std::optional<QmpClient> client(std::in_place, test::Soon(), server.TakeClient());
  EXPECT_MSB_ERROR(
      client->Execute(Context::Background().WithTimeout(std::chrono::milliseconds(70)), "stop"),
      ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_FALSE(client->AwaitClose(Context::Background().WithTimeout(std::chrono::seconds(0))));
  client.reset();
}

TEST(QmpClientTest, AwaitCloseDoesNotWaitOutAFloodOfReplies) {
  Server server([](Server& self) {
    self.Negotiate();
    while (self.TrySend("{\"return\": {}, \"id\": 7}\r\n")) {
    }
  });
  QmpClient client(test::Soon(), server.TakeClient());
  EXPECT_FALSE(client.AwaitClose(Context::Background().WithTimeout(std::chrono::milliseconds(70))));
}

TEST(QmpClientTest, AwaitCloseWaitsNoLongerThanItMay) {
  Server server([](Server& self) {
    self.Negotiate();
    EXPECT_TRUE(self.Take().is_null());
  });
  std::optional<QmpClient> client(std::in_place, test::Soon(), server.TakeClient());
  EXPECT_FALSE(
      client->AwaitClose(Context::Background().WithTimeout(std::chrono::milliseconds(70))));
  client.reset();
}

TEST(QmpClientTest, AThrowingEventFunctionEndsOnlyTheCall) {
  Server server([](Server& self) {
    self.Negotiate();
    const base::Json command = self.Take();
    self.Send(Event("BLOCK_JOB_ERROR"));
    self.Answer(command, 1);
    self.Answer(self.Take(), 2);
  });
  QmpClient client(
      test::Soon(), server.TakeClient(),
      [](const std::string& name, const base::Json&) { throw std::runtime_error(name); });
  EXPECT_THROW(client.Execute(test::Soon(), "first"), std::runtime_error);
  EXPECT_EQ(client.Execute(test::Soon(), "second"), 2);
}

TEST(QmpClientTest, AnArgumentThatIsNotUtf8IsNotSent) {
  Server server([](Server& self) {
    self.Negotiate();
    EXPECT_TRUE(self.Take().is_null());
  });
  QmpClient client(test::Soon(), server.TakeClient());
  EXPECT_MSB_ERROR(client.Execute(test::Soon(), "blockdev-add", {{"filename", "\xff"}}),
                   ErrorKind::kInvalidArgument, "QEMU's blockdev-add", "not UTF-8");
}

TEST(QmpClientTest, TalksToQemu) {
  const std::filesystem::path binary = base::FindProgram("qemu-system-x86_64");
  if (binary.empty()) GTEST_SKIP() << "no QEMU here";
  const test::TempDir dir;
  const base::UniqueFd fd = base::OpenDirectory(dir.path());
  base::UniqueFd listener = base::ListenAt(fd.get(), "qmp.sock");
  const base::Leash leash;
  const base::ProcessIdentity identity = base::Spawn(
      {.path = binary,
       .arguments = {"-machine", "none", "-nodefaults", "-no-user-config", "-display", "none",
                     "-chardev",
                     fmt::format("socket,id=qmp,fd={},server=on,wait=off", listener.get()), "-mon",
                     "chardev=qmp,mode=control"},
       .directory = dir.path(),
       .inherited = {listener.get()}},
      leash);
  listener.Reset(-1);
  base::UniqueFd socket = base::TryConnectAt(test::Soon(), fd.get(), "qmp.sock");
  ASSERT_TRUE(socket);
  std::vector<std::string> events;
  QmpClient client(test::Soon(), std::move(socket),
                   [&](const std::string& name, const base::Json&) { events.push_back(name); });
  EXPECT_TRUE(client.Execute(test::Soon(), "query-status").contains("running"));
  EXPECT_MSB_ERROR(client.Execute(test::Soon(), "no-such-command"), ErrorKind::kIO,
                   "QEMU refused no-such-command: CommandNotFound: ", "see qemu.log");
  client.Execute(test::Soon(), "quit");
  EXPECT_TRUE(client.AwaitClose(test::Soon()));
  EXPECT_THAT(events, ElementsAre("SHUTDOWN"));
  const auto process = base::ProcessHandle::Open(identity);
  EXPECT_TRUE(!process || process->AwaitEnd(test::Soon()));
}

}  // namespace
}  // namespace msb::vmm
