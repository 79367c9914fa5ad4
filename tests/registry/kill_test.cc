// SPDX-License-Identifier: Apache-2.0
//
// Kills the client or the registry at random moments of Push and Pull: when a random number of
// bytes has crossed the network. MSB_KILLS sets the number of moments in each test; the default is
// small.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>

#include "tests/registry/registry_home.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

// Calls function in a forked process. Returns its pid.
pid_t Fork(const std::function<void()>& function) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  alarm(120);
  try {
    function();
  } catch (const std::exception& e) {
    fmt::print(stderr, "the killed process: {}\n", e.what());
    _exit(1);
  }
  _exit(0);
}

class RegistryKillTest : public RegistryTest {
 protected:
  static constexpr std::uint64_t kChunks = 20;
  static constexpr std::uint64_t kDataBytes = 64 << 10;  // In each chunk.
  static constexpr unsigned kConnections = 4;
  // Blobs that may be in flight, or wait to be checked, when a process is killed; those are
  // transferred again.
  static constexpr std::uint64_t kInFlight = (kConnections + 4) * (kDataBytes + 1024);
  // The most bytes of the requests, answers and documents of a call.
  static constexpr std::uint64_t kOverhead = 256 << 10;

  void SetUp() override {
    RegistryTest::SetUp();
    if (IsSkipped()) return;
    std::vector<std::pair<std::uint64_t, std::string>> data;
    for (std::uint64_t i = 0; i < kChunks; ++i) {
      data.emplace_back(i * kChunkBytes, FastNoise(kDataBytes, i));
    }
    web_ = std::make_unique<SnapshotArtifact>(MakeRaw(here_, "web", kChunks * kChunkBytes, data));
    proxy_ = std::make_unique<TcpProxy>(registry().port());
  }

  static int Kills() {
    const char* text = std::getenv("MSB_KILLS");
    return text == nullptr ? 3 : std::atoi(text);
  }

  std::uint64_t RandomBelow(std::uint64_t end) {
    return std::uniform_int_distribution<std::uint64_t>(0, end - 1)(random_);
  }

  void Push(const TcpProxy& proxy, const std::string& repository, int retries = 5) {
    Snapshot::Push(ctx_, "web", proxy.address() + "/" + repository,
                   {.registry = {.connections = kConnections, .retries = retries}}, here_);
  }
  std::string Pull(const TcpProxy& proxy, const fs::path& home, int retries = 5) {
    return Snapshot::Pull(ctx_, proxy.address() + "/web", "",
                          {.registry = {.connections = kConnections, .retries = retries}},
                          LocalClient(home))
        .Path();
  }

  // Makes Push forget which repositories have the snapshot, so that it mounts nothing.
  void Forget() { fs::remove(dir_ / "here/cache/registries.json"); }

  // Expects a tag to name nothing, or something complete.
  void ExpectCompleteOrAbsent(const std::string& repository) {
    EXPECT_EQ(storage().Missing(), "");
    if (!storage().Tags(repository).contains("latest")) return;
    TempDir home(dir_.path());
    Snapshot::Pull(ctx_, At(repository), "", {}, LocalClient(home.path()));
  }

  // Pushes again, and expects only missing blobs to be sent.
  void ExpectPushContinues(const std::string& repository) {
    const std::uint64_t had = TotalOf(storage().Layers(repository));
    // The other proxy may still have bytes of the interrupted call.
    const TcpProxy proxy(registry().port());
    Push(proxy, repository);
    EXPECT_LE(proxy.sent(), kChunks * kDataBytes + kOverhead - had);
    EXPECT_EQ(storage().Missing(), "");
    EXPECT_TRUE(storage().Tags(repository).contains("latest"));
  }

  // Pulls again, after received bytes of an interrupted pull, and expects only missing ones to be
  // received.
  void ExpectPullContinues(const fs::path& home, std::uint64_t received) {
    const TcpProxy proxy(registry().port());
    const std::string path = Pull(proxy, home);
    const std::uint64_t all = kChunks * kDataBytes + kOverhead;
    const std::uint64_t kept = received > kInFlight ? received - kInFlight : 0;
    EXPECT_LE(proxy.received(), all > kept ? all - kept : 0) << "after " << received << " bytes";
    ExpectSame(*web_, Snapshot::Open(ctx_, path, LocalClient(home)));
    ExpectNoStages(home);
  }

  // Calls call in a process that is killed when the proxy has carried this many bytes.
  void KillProcess(std::uint64_t moment, const std::function<void()>& call) {
    std::atomic<pid_t> pid = 0;
    proxy_->After(moment, [&] {
      while (pid == 0) std::this_thread::yield();
      kill(pid, SIGKILL);
    });
    pid = Fork(call);
    waitpid(pid, nullptr, 0);
    proxy_->After(0, [] {});
  }

  // Makes a call during which the registry is killed at that moment, and restarts the registry.
  void KillRegistry(std::uint64_t moment, const std::function<void()>& call) {
    proxy_->After(moment, [&] { registry().Kill(); });
    try {
      call();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kRegistryUnavailable) << e.what();
    }
    proxy_->After(0, [] {});
    registry().Kill();
    registry().Start();
  }

  // Interrupts a push to a new repository at random moments, and expects it to be continued.
  void ForEachPush(const std::function<void(std::uint64_t, const std::string&)>& interrupt) {
    Push(*proxy_, "web");
    const std::uint64_t all = proxy_->total();
    for (int i = 0; i < Kills(); ++i) {
      const std::string repository = fmt::format("push-{}", i);
      const std::uint64_t moment = RandomBelow(all);
      SCOPED_TRACE(fmt::format("kill {} after {} of {} bytes", i, moment, all));
      Forget();
      interrupt(moment, repository);
      ExpectCompleteOrAbsent(repository);
      ExpectPushContinues(repository);
    }
  }

  // Does the same with a pull into a new home.
  void ForEachPull(const std::function<void(std::uint64_t, const fs::path&)>& interrupt) {
    Push(*proxy_, "web");
    const std::uint64_t before = proxy_->total();
    Pull(*proxy_, dir_ / "probe");
    const std::uint64_t all = proxy_->total() - before;
    for (int i = 0; i < Kills(); ++i) {
      const fs::path home = dir_ / fmt::format("there-{}", i);
      const std::uint64_t moment = RandomBelow(all);
      SCOPED_TRACE(fmt::format("kill {} after {} of {} bytes", i, moment, all));
      const std::uint64_t received = proxy_->received();
      interrupt(moment, home);
      ExpectPullContinues(home, std::min(proxy_->received() - received, moment));
    }
  }

  std::mt19937 random_{20261129};
  Client here_ = Home("here");
  std::unique_ptr<SnapshotArtifact> web_;
  std::unique_ptr<TcpProxy> proxy_;
};

TEST_F(RegistryKillTest, AKilledPushIsContinued) {
  ForEachPush([&](std::uint64_t moment, const std::string& repository) {
    KillProcess(moment, [&] { Push(*proxy_, repository); });
  });
}

TEST_F(RegistryKillTest, AKilledPullIsContinued) {
  ForEachPull([&](std::uint64_t moment, const fs::path& home) {
    KillProcess(moment, [&] { Pull(*proxy_, home); });
  });
}

TEST_F(RegistryKillTest, APushIsContinuedAfterTheRegistryWasKilled) {
  ForEachPush([&](std::uint64_t moment, const std::string& repository) {
    KillRegistry(moment, [&] { Push(*proxy_, repository, 0); });
  });
}

TEST_F(RegistryKillTest, APullIsContinuedAfterTheRegistryWasKilled) {
  ForEachPull([&](std::uint64_t moment, const fs::path& home) {
    KillRegistry(moment, [&] { Pull(*proxy_, home, 0); });
  });
}

// A registry that is restarted meanwhile does not fail a call that may retry.
TEST_F(RegistryKillTest, APushWaitsForARegistryThatIsRestarted) {
  std::atomic<bool> is_killed = false;
  proxy_->After(kChunks * kDataBytes / 2, [&] {
    registry().Kill();
    is_killed = true;
    is_killed.notify_all();
  });
  std::string failure;
  std::jthread pusher([&] {
    try {
      Push(*proxy_, "web");
    } catch (const Error& e) {
      failure = e.what();
    }
  });
  is_killed.wait(false);
  registry().Start();
  pusher.join();
  EXPECT_EQ(failure, "");
  EXPECT_EQ(storage().Missing(), "");
  EXPECT_TRUE(storage().Tags("web").contains("latest"));
}

}  // namespace
}  // namespace msb::test
