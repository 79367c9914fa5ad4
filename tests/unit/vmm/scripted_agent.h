// SPDX-License-Identifier: Apache-2.0
//
// A guest agent for tests, which runs a script in a thread.

#ifndef MSB_TESTS_UNIT_VMM_SCRIPTED_AGENT_H_
#define MSB_TESTS_UNIT_VMM_SCRIPTED_AGENT_H_

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/unix_socket.h"
#include "tests/support/support.h"

namespace msb::test {

// One connection to the agent.
class AgentConnection {
 public:
  explicit AgentConnection(base::UniqueFd socket) : socket_(std::move(socket)) {}

  // Ignores errors, because the client may have stopped receiving.
  void Send(const std::string& bytes) { TrySend(bytes); }
  // Returns false if the client has closed the connection.
  bool TrySend(const std::string& bytes) { return base::SendAll(Soon(), socket_.get(), bytes); }
  // Returns the next byte, or 0 at the end of the stream.
  char TakeByte() {
    std::array<char, 1> byte{};
    return base::ReceiveSome(Soon(), socket_.get(), byte) == 0 ? '\0' : byte[0];
  }
  // Returns the next command, or null at the end of the stream.
  base::Json Take() {
    std::string line;
    std::array<char, 1> byte{};
    while (!line.ends_with('\n')) {
      if (base::ReceiveSome(Soon(), socket_.get(), byte) == 0) return nullptr;
      if (byte[0] == '\xff') line.clear();
      if (byte[0] != '\xff') line += byte[0];
    }
    return base::ParseJson(line);
  }
  void Return(const base::Json& result) { Send(base::Json{{"return", result}}.dump() + "\n"); }
  void Refuse(const std::string& error_class, const std::string& description) {
    const base::Json error = {{"class", error_class}, {"desc", description}};
    Send(base::Json{{"error", error}}.dump() + "\n");
  }
  // Answers a synchronization. Returns false at the end of the stream.
  bool Synchronize() {
    const base::Json command = Take();
    if (command.is_null()) return false;
    EXPECT_EQ(command.at("execute"), "guest-sync-delimited");
    Send('\xff' + base::Json{{"return", command.at("arguments").at("id")}}.dump() + "\n");
    return true;
  }
  // Takes a command, which must have this name, and returns its arguments.
  base::Json Expect(const std::string& name) {
    const base::Json command = Take();
    EXPECT_EQ(command.value("execute", ""), name);
    return command.value("arguments", base::Json::object());
  }
  // Takes the question for the state of the file systems, and answers "frozen" or "thawed".
  void ReportState(const base::Json& state) {
    Expect("guest-fsfreeze-status");
    Return(state);
  }
  // Waits until the client has closed the connection.
  void AwaitEnd() { EXPECT_TRUE(Take().is_null()); }

 private:
  base::UniqueFd socket_;
};

using AgentScript = std::function<void(AgentConnection&)>;

// An agent with one client, to which it is connected from the beginning. The connection is closed
// when the script returns.
class ScriptedAgent {
 public:
  explicit ScriptedAgent(AgentScript script) {
    std::array<int, 2> fds{};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()) != 0) {
      ADD_FAILURE() << "no sockets";
    }
    client_.Reset(fds[0]);
    thread_ = std::thread([script = std::move(script), fd = fds[1]] {
      AgentConnection connection{base::UniqueFd(fd)};
      script(connection);
    });
  }
  ScriptedAgent(const ScriptedAgent&) = delete;
  ScriptedAgent& operator=(const ScriptedAgent&) = delete;
  ~ScriptedAgent() { thread_.join(); }

  base::UniqueFd TakeClient() { return std::move(client_); }

 private:
  base::UniqueFd client_;
  std::thread thread_;
};

// An agent that listens at a socket, like QEMU: it serves one client at a time.
class ListeningAgent {
 public:
  // Runs the script for each connection. fd is the listening socket.
  ListeningAgent(base::UniqueFd fd, AgentScript script) : socket_(std::move(fd)) {
    thread_ = std::thread([this, script = std::move(script)] {
      for (;;) {
        const int client = accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client < 0) return;
        AgentConnection connection{base::UniqueFd(client)};
        script(connection);
      }
    });
  }
  ListeningAgent(const ListeningAgent&) = delete;
  ListeningAgent& operator=(const ListeningAgent&) = delete;
  ~ListeningAgent() {
    shutdown(socket_.get(), SHUT_RDWR);  // Ends accept.
    thread_.join();
  }

 private:
  base::UniqueFd socket_;
  std::thread thread_;
};

}  // namespace msb::test

#endif  // MSB_TESTS_UNIT_VMM_SCRIPTED_AGENT_H_
