// SPDX-License-Identifier: Apache-2.0

#include "tests/support/tcp_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <stdexcept>
#include <utility>

namespace msb::test {
namespace {

// The most bytes that one direction of a connection may keep; more wait in the kernel.
constexpr std::size_t kMaxQueued = 16 << 20;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

base::UniqueFd Listen() {
  base::UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_in address = Loopback(0);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd.get(), 128) != 0) {
    throw std::runtime_error("cannot listen on the loopback interface");
  }
  return fd;
}

int PortOf(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

void SendAtOnce(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// Makes close(2) reset the connection.
void ResetOnClose(int fd) {
  const linger at_once{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

}  // namespace

TcpProxy::TcpProxy(int port)
    : target_(port), listener_(Listen()), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  port_ = PortOf(listener_.get());
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

TcpProxy::~TcpProxy() {
  thread_.request_stop();
  Wake();
}

void TcpProxy::Wake() const { eventfd_write(wake_.get(), 1); }

void TcpProxy::SetLatency(std::chrono::microseconds round_trip) { delay_ = round_trip / 2; }

void TcpProxy::SetStalled(bool stalled) {
  is_stalled_ = stalled;
  Wake();
}

void TcpProxy::Cut() {
  cut_ = true;
  Wake();
}

void TcpProxy::CutEach(std::uint64_t bytes) { cut_each_ = bytes; }

void TcpProxy::After(std::uint64_t bytes, std::function<void()> function) {
  const std::lock_guard lock(mutex_);
  after_at_ = total() + bytes;
  after_ = std::move(function);
  Wake();
}

void TcpProxy::CallAfter() {
  const std::lock_guard lock(mutex_);
  if (after_ && total() >= after_at_) std::exchange(after_, nullptr)();
}

void TcpProxy::Run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    Wait();
    CallAfter();
    const bool cut = cut_.exchange(false);
    const std::uint64_t limit = cut_each_;
    for (const auto& connection : open_) {
      if (is_stalled_ || cut) continue;
      for (Flow* flow : {&connection->up, &connection->down}) {
        Receive(*connection, *flow);
        if (limit > 0 && connection->carried >= limit) connection->is_broken = true;
        if (connection->is_broken) break;
        Forward(*connection, *flow);
      }
    }
    std::erase_if(open_, [&](const auto& connection) {
      const bool is_over = connection->up.has_ended && connection->down.has_ended &&
                           connection->up.queue.empty() && connection->down.queue.empty();
      if (!is_over && !connection->is_broken && !cut) return false;
      if (!is_over) {
        ResetOnClose(connection->client.get());
        ResetOnClose(connection->server.get());
      }
      return true;
    });
    if (!is_stalled_) Accept();
  }
  for (const auto& connection : open_) ResetOnClose(connection->client.get());
  open_.clear();
}

void TcpProxy::Wait() {
  std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0}};
  std::optional<Clock::time_point> due;
  if (!is_stalled_) {
    fds.push_back({listener_.get(), POLLIN, 0});
    for (const auto& connection : open_) {
      for (Flow* flow : {&connection->up, &connection->down}) {
        if (!flow->has_ended && flow->queued < kMaxQueued) {
          fds.push_back({flow->from, POLLIN, 0});
        }
        if (flow->queue.empty()) continue;
        const auto first = flow->queue.front().due;
        if (first <= Clock::now()) {
          fds.push_back({flow->to, POLLOUT, 0});
        } else if (!due || first < *due) {
          due = first;
        }
      }
    }
  }
  timespec timeout{};
  if (due) {
    const auto left = std::max<std::chrono::nanoseconds>(*due - Clock::now(), {});
    timeout = {left.count() / 1'000'000'000, left.count() % 1'000'000'000};
  }
  ppoll(fds.data(), fds.size(), due ? &timeout : nullptr, nullptr);
  eventfd_t count = 0;
  eventfd_read(wake_.get(), &count);
}

void TcpProxy::Accept() {
  for (;;) {
    base::UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) return;
    ++connections_;
    base::UniqueFd server(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address = Loopback(target_);
    if (connect(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      ResetOnClose(client.get());
      continue;
    }
    SendAtOnce(client.get());
    SendAtOnce(server.get());
    auto connection = std::make_unique<Connection>();
    connection->up = {.from = client.get(), .to = server.get(), .count = &sent_};
    connection->down = {.from = server.get(), .to = client.get(), .count = &received_};
    connection->client = std::move(client);
    connection->server = std::move(server);
    open_.push_back(std::move(connection));
  }
}

void TcpProxy::Receive(Connection& connection, Flow& flow) {
  if (flow.has_ended || flow.queued >= kMaxQueued) return;
  std::string bytes(256 << 10, '\0');
  const ssize_t n = recv(flow.from, bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (n < 0) {
    if (errno != EAGAIN && errno != EINTR) connection.is_broken = true;
    return;
  }
  bytes.resize(static_cast<std::size_t>(n));
  if (n == 0) flow.has_ended = true;
  flow.queued += bytes.size();
  connection.carried += bytes.size();
  *flow.count += bytes.size();
  flow.queue.push_back({Clock::now() + delay_.load(), std::move(bytes)});
  CallAfter();
}

void TcpProxy::Forward(Connection& connection, Flow& flow) {
  while (!flow.queue.empty() && flow.queue.front().due <= Clock::now()) {
    std::string& bytes = flow.queue.front().bytes;
    if (bytes.empty()) {
      shutdown(flow.to, SHUT_WR);
    } else {
      const ssize_t n = send(flow.to, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) connection.is_broken = true;
        return;
      }
      flow.queued -= static_cast<std::size_t>(n);
      bytes.erase(0, static_cast<std::size_t>(n));
      if (!bytes.empty()) return;
    }
    flow.queue.pop_front();
  }
}

}  // namespace msb::test
