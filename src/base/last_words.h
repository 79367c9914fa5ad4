// SPDX-License-Identifier: Apache-2.0
//
// Sends a message on behalf of this process if it ends before it can do so itself, for example by
// SIGKILL.

#ifndef MSB_SRC_BASE_LAST_WORDS_H_
#define MSB_SRC_BASE_LAST_WORDS_H_

#include <sys/types.h>

#include <chrono>
#include <string>

#include "src/base/descriptor.h"

namespace msb::base {

// A Message describes what to send.
struct Message {
  int socket = -1;         // A connected stream socket.
  std::string bytes = {};  // What to send.
  std::string reply = {};  // Bytes by which an answer to it is recognized. Must not be empty.
  // A locked file, or -1. If the message is sent, the lock is kept until the reply has arrived, the
  // other side has closed the connection, or the time limit has passed.
  int lock = -1;
  // The time limit for sending the message and receiving the reply together, regardless of what the
  // other side sends. Must be positive.
  std::chrono::milliseconds time_limit = std::chrono::seconds(30);
};

// While a LastWords exists, another process waits for this one to end, and then sends the message.
// It is a child of the init process (or of this one, if this is a subreaper), belongs to a session
// of its own, and ignores all signals that can be ignored. It has no descriptors but those of the
// message.
class LastWords {
 public:
  // Throws kIO if the process cannot be created.
  explicit LastWords(const Message& message);
  LastWords(const LastWords&) = delete;
  LastWords& operator=(const LastWords&) = delete;
  // Ends the process, which sends nothing, unless SendNow was called.
  ~LastWords();

  // Lets the process send the message now, and does not wait for that. The caller must close its
  // own copies of the socket and the lock, and must not release the lock (LockedFd::LeaveLocked).
  void SendNow() { held_.Reset(-1); }

 private:
  UniqueFd held_;  // The end of a channel that only this process has. Empty after SendNow.
  pid_t pid_ = 0;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_LAST_WORDS_H_
