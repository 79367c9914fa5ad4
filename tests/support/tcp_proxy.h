// SPDX-License-Identifier: Apache-2.0
//
// Forwards TCP connections on the loopback interface, and counts, delays, stalls and cuts them.

#ifndef MSB_TESTS_SUPPORT_TCP_PROXY_H_
#define MSB_TESTS_SUPPORT_TCP_PROXY_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/base/file.h"

namespace msb::test {

// A TcpProxy listens on a free port of 127.0.0.1 until it is destroyed, which resets all
// connections. One thread of its own does all the work. All functions may be called by any thread.
class TcpProxy {
 public:
  // Forwards to a port of 127.0.0.1.
  explicit TcpProxy(int port);
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;
  ~TcpProxy();

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // The bytes that were received from clients, and from the server.
  std::uint64_t sent() const { return sent_; }
  std::uint64_t received() const { return received_; }
  std::uint64_t total() const { return sent_ + received_; }
  // The connections that were accepted.
  std::uint64_t connections() const { return connections_; }

  // Delays all bytes, in each direction by half of this.
  void SetLatency(std::chrono::microseconds round_trip);
  // While it is set, nothing is forwarded; connections are still accepted.
  void SetStalled(bool stalled);
  // Resets all connections.
  void Cut();
  // Resets each connection that has carried this many bytes, of which the last are not forwarded.
  // 0: none.
  void CutEach(std::uint64_t bytes);
  // Calls function once, in the proxy's thread, when total() has grown by this many bytes. The last
  // bytes may not have been forwarded yet. Replaces the function that was set before, and waits
  // until that has returned if it is being called. The function must not call After.
  void After(std::uint64_t bytes, std::function<void()> function);

 private:
  using Clock = std::chrono::steady_clock;

  struct Segment {
    Clock::time_point due;
    std::string bytes;  // Empty: the end of the stream.
  };
  // One direction of a connection.
  struct Flow {
    int from = -1;
    int to = -1;
    std::atomic<std::uint64_t>* count = nullptr;
    std::deque<Segment> queue = {};
    std::size_t queued = 0;  // Bytes in queue.
    bool has_ended = false;  // The end of the stream was read.
  };
  struct Connection {
    base::UniqueFd client;
    base::UniqueFd server;
    Flow up, down;
    std::uint64_t carried = 0;
    bool is_broken = false;
  };

  void Run(const std::stop_token& stop);
  // Waits until there is something to do.
  void Wait();
  void Accept();
  void Receive(Connection& connection, Flow& flow);
  static void Forward(Connection& connection, Flow& flow);
  void CallAfter();
  void Wake() const;

  int port_ = 0;
  const int target_;
  base::UniqueFd listener_;
  base::UniqueFd wake_;
  std::atomic<std::uint64_t> sent_ = 0;
  std::atomic<std::uint64_t> received_ = 0;
  std::atomic<std::uint64_t> connections_ = 0;
  std::atomic<std::chrono::microseconds> delay_ = std::chrono::microseconds(0);
  std::atomic<bool> is_stalled_ = false;
  std::atomic<bool> cut_ = false;
  std::atomic<std::uint64_t> cut_each_ = 0;
  std::mutex mutex_;
  std::function<void()> after_;                    // Guarded by mutex_.
  std::uint64_t after_at_ = 0;                     // Guarded by mutex_; a value of total().
  std::vector<std::unique_ptr<Connection>> open_;  // Used only by thread_.
  std::jthread thread_;
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_TCP_PROXY_H_
