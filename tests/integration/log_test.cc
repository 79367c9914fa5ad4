// SPDX-License-Identifier: Apache-2.0
//
// When log callbacks are called, and what they may do.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/forwarding_backend.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Wraps the local backend. Each call logs while it holds a lock, like that of a sandbox's
// directory.
class LockingBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  std::string_view Name() const override { return "locking"; }
  vmm::SandboxRecord Inspect(const Context& ctx, const std::string& name) override {
    const auto lock = LockAndLog("inspecting");
    return ForwardingBackend::Inspect(ctx, name);
  }
  vmm::SandboxRecord Create(const Context& ctx, const vmm::SandboxSpec& spec) override {
    const auto lock = LockAndLog("creating");
    return ForwardingBackend::Create(ctx, spec);
  }
  vmm::SandboxRecord Start(const Context& ctx, const std::string& name, bool detached) override {
    const auto lock = LockAndLog("starting");
    return ForwardingBackend::Start(ctx, name, detached);
  }
  void Stop(const Context& ctx, const std::string& name,
            std::chrono::milliseconds timeout) override {
    const auto lock = LockAndLog("stopping");
    ForwardingBackend::Stop(ctx, name, timeout);
  }
  void Kill(const Context& ctx, const std::string& name) override {
    const auto lock = LockAndLog("killing");
    ForwardingBackend::Kill(ctx, name);
  }
  void Remove(const Context& ctx, const std::string& name) override {
    const auto lock = LockAndLog("removing");
    ForwardingBackend::Remove(ctx, name);
  }

  LogFunction log;

 private:
  std::unique_lock<std::mutex> LockAndLog(std::string_view message) {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) throw Error(ErrorKind::kInternal, "called while its lock was held");
    log(message);
    return lock;
  }

  std::mutex mutex_;
};

class LogTest : public ::testing::Test {
 protected:
  LogTest() {
    Config config{.home = dir_ / "home", .backend = "local"};
    const auto backend = std::make_shared<LockingBackend>(Client(config).backend());
    config.backend = backend;
    config.log = [this](std::string_view message) {
      messages_.emplace_back(message);
      if (on_message_) on_message_();
    };
    client_ = std::make_unique<Client>(config);
    backend->log = client_->config().log;
    MakeStoppedSandbox(*client_, "baseline", dir_ / "base.img");
    messages_.clear();
  }
  ~LogTest() override { on_message_ = {}; }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  std::function<void()> on_message_;
  std::vector<std::string> messages_;
  std::unique_ptr<Client> client_;
};

TEST_F(LogTest, ACallbackMayCallTheLibraryForTheSameSandbox) {
  std::vector<std::string> failures;
  int depth = 0;
  on_message_ = [&] {
    if (++depth > 1) return;  // Its own calls log, too.
    try {
      GetSandbox(ctx_, "baseline", *client_).Stop(ctx_);
      Snapshot::Create(ctx_, "baseline", {.name = "of-the-callback", .force = true}, *client_);
      RemoveSandbox(ctx_, "baseline", *client_);
    } catch (const Error& e) {
      failures.emplace_back(e.what());
    }
  };
  std::ignore = GetSandbox(ctx_, "baseline", *client_);
  EXPECT_THAT(failures, IsEmpty());
  EXPECT_EQ(Snapshot::List(ctx_, *client_).size(), 1U);
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "baseline", *client_), ErrorKind::kSandboxNotFound,
                   "no sandbox 'baseline'");
}

TEST_F(LogTest, MessagesArriveBeforeACallReturnsOrThrows) {
  std::ignore = GetSandbox(ctx_, "baseline", *client_);
  EXPECT_THAT(messages_, ElementsAre("inspecting"));
  messages_.clear();
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "absent", *client_), ErrorKind::kSandboxNotFound,
                   "no sandbox 'absent'");
  EXPECT_THAT(messages_, ElementsAre("inspecting"));
}

TEST_F(LogTest, ACallbackOfADestructorMayCallTheLibrary) {
  std::string failure;
  {
    const Sandbox sandbox = StartSandbox(ctx_, "baseline", *client_);
    on_message_ = [&] {
      on_message_ = {};
      try {
        GetSandbox(ctx_, "baseline", *client_).Stop(ctx_);
      } catch (const Error& e) {
        failure = e.what();
      }
    };
    messages_.clear();
  }
  EXPECT_EQ(failure, "");
  EXPECT_THAT(messages_, ::testing::Contains("stopping"));
}

TEST_F(LogTest, AThrowingCallbackDoesNotFailTheCall) {
  on_message_ = [] { throw 1; };
  EXPECT_EQ(GetSandbox(ctx_, "baseline", *client_).Name(), "baseline");
}

}  // namespace
}  // namespace msb::test
