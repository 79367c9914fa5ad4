// SPDX-License-Identifier: Apache-2.0
//
// A network with delays, cut connections and servers that do not answer; and what Push and Pull
// report meanwhile.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <latch>
#include <span>
#include <thread>

#include "src/registry/chunk_codec.h"
#include "tests/registry/registry_home.h"

namespace msb::test {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

class NetworkTest : public RegistryTest {
 protected:
  void SetUp() override {
    RegistryTest::SetUp();
    if (IsSkipped()) return;
    proxy_ = std::make_unique<TcpProxy>(registry().port());
    std::vector<std::pair<std::uint64_t, std::string>> data;
    for (std::uint64_t i = 0; i < kChunks; ++i) {
      data.emplace_back(i * kChunkBytes, FastNoise(kDataBytes, i));
    }
    web_ = std::make_unique<SnapshotArtifact>(MakeRaw(here_, "web", kChunks * kChunkBytes, data));
  }

  // Returns a reference by which the registry is reached through the proxy.
  std::string Far(const std::string& name) { return proxy_->address() + "/" + name; }

  static constexpr std::uint64_t kChunks = 12;
  static constexpr std::uint64_t kDataBytes = 256 << 10;  // In each chunk.

  Client here_ = Home("here");
  Client there_ = Home("there");
  std::unique_ptr<SnapshotArtifact> web_;
  std::unique_ptr<TcpProxy> proxy_;
};

TEST_F(NetworkTest, MakesSeveralRequestsAtTheSameTime) {
  proxy_->SetLatency(milliseconds(20));
  Snapshot::Push(ctx_, "web", Far("web"), {}, here_);
  EXPECT_GT(proxy_->connections(), 2U);
  EXPECT_LE(proxy_->connections(), 9U);
  const std::uint64_t before = proxy_->connections();
  const auto pulled = Snapshot::Pull(ctx_, Far("web"), "", {}, there_).Open(ctx_);
  EXPECT_GT(proxy_->connections(), before + 2);
  ExpectSame(*web_, pulled);
}

TEST_F(NetworkTest, OneConnectionIsEnough) {
  Snapshot::Push(ctx_, "web", Far("web"), {.registry = {.connections = 1}}, here_);
  EXPECT_EQ(proxy_->connections(), 1U);
  Snapshot::Pull(ctx_, Far("web"), "", {.registry = {.connections = 1}}, there_);
  EXPECT_EQ(proxy_->connections(), 2U);
}

TEST_F(NetworkTest, RepeatsRequestsWhoseConnectionsAreCut) {
  proxy_->CutEach(3 * kDataBytes);
  Snapshot::Push(ctx_, "web", Far("web"), {}, here_);
  EXPECT_EQ(storage().Missing(), "");
  const auto pulled = Snapshot::Pull(ctx_, Far("web"), "", {}, there_).Open(ctx_);
  ExpectSame(*web_, pulled);
  // Each connection carried a quarter of the data at most.
  EXPECT_GE(proxy_->connections(), 8U);
  // What had arrived was not sent again.
  EXPECT_LT(proxy_->total(), 2 * kChunks * kDataBytes * 3 / 2);
}

TEST_F(NetworkTest, SurvivesTheLossOfAllConnections) {
  proxy_->After(kChunks * kDataBytes / 2, [&] { proxy_->Cut(); });
  Snapshot::Push(ctx_, "web", Far("web"), {}, here_);
  EXPECT_EQ(storage().Missing(), "");
  proxy_->After(kChunks * kDataBytes / 2, [&] { proxy_->Cut(); });
  ExpectSame(*web_, Snapshot::Pull(ctx_, Far("web"), "", {}, there_).Open(ctx_));
}

TEST_F(NetworkTest, GivesUpAfterTheLastRetry) {
  proxy_->CutEach(1);
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", Far("web"), {.registry = {.retries = 1}}, here_),
                   ErrorKind::kRegistryUnavailable, "registry '" + proxy_->address() + "'",
                   "repository 'web'", "try again");
  EXPECT_MSB_ERROR(Snapshot::Pull(ctx_, Far("web"), "", {.registry = {.retries = 0}}, there_),
                   ErrorKind::kRegistryUnavailable, "registry '" + proxy_->address() + "'",
                   "repository 'web'", "try again");
  ExpectNoStages(dir_ / "there");
}

TEST_F(NetworkTest, NamesARegistryThatDoesNotRun) {
  registry().Kill();
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", At("web"), {.registry = {.retries = 0}}, here_),
                   ErrorKind::kRegistryUnavailable, registry().address(), "try again");
}

// Nothing arrives any more, so only the deadline can end the calls.
TEST_F(NetworkTest, EndsAtTheDeadlineWhileTheRegistryStalls) {
  proxy_->After(kDataBytes, [&] { proxy_->SetStalled(true); });
  EXPECT_MSB_ERROR(
      Snapshot::Push(ctx_.WithTimeout(milliseconds(300)), "web", Far("web"), {}, here_),
      ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_EQ(storage().Tags("web").count("latest"), 0U);

  // The deadline may have passed before the proxy stalled.
  proxy_->After(0, [] {});
  proxy_->SetStalled(false);
  Snapshot::Push(ctx_, "web", Far("web"), {}, here_);
  proxy_->After(2 * kDataBytes, [&] { proxy_->SetStalled(true); });
  EXPECT_MSB_ERROR(Snapshot::Pull(ctx_.WithTimeout(milliseconds(300)), Far("web"), "", {}, there_),
                   ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_EQ(Snapshot::ListDir(ctx_, "", there_).size(), 0U);
}

// The proxy cancels each call in the middle of the transfer. From then on, nothing arrives, so the
// call ends without waiting for the requests that are being made.
TEST_F(NetworkTest, ACancellationTakesEffectAtOnce) {
  const auto cancel_later = [&] {
    proxy_->SetStalled(false);
    auto [ctx, cancel] = ctx_.WithCancel();
    proxy_->After(3 * kDataBytes, [this, cancel = std::move(cancel)] {
      proxy_->SetStalled(true);
      cancel();
    });
    return ctx;
  };
  EXPECT_MSB_ERROR(Snapshot::Push(cancel_later(), "web", Far("web"), {}, here_),
                   ErrorKind::kCancelled, "cancel");
  EXPECT_EQ(storage().Tags("web").count("latest"), 0U);

  Snapshot::Push(ctx_, "web", At("web"), {}, here_);
  EXPECT_MSB_ERROR(Snapshot::Pull(cancel_later(), Far("web"), "", {}, there_),
                   ErrorKind::kCancelled, "cancel");
  EXPECT_EQ(Snapshot::ListDir(ctx_, "", there_).size(), 0U);
  // What has arrived is kept.
  EXPECT_EQ(PullStages(dir_ / "there").size(), 1U);
  ExpectSame(*web_, Snapshot::Pull(ctx_, At("web"), "", {}, there_).Open(ctx_));
  ExpectNoStages(dir_ / "there");
}

// At this level, compressing one of the chunks takes several seconds. The call must end before
// another thread, which begins earlier, has compressed a half of it.
TEST_F(NetworkTest, ACancellationDoesNotWaitForTheCompressor) {
  std::string text;
  while (text.size() < kChunkBytes) {
    text += FastNoise(100 + text.size() % 901, text.size()) + text.substr(0, 1000);
  }
  MakeRaw(here_, "text", 2 * kChunkBytes,
          {{0, text.substr(0, kChunkBytes)}, {kChunkBytes, 'x' + text.substr(0, kChunkBytes - 1)}});
  std::atomic<bool> stop = false;
  std::atomic<bool> other_ended = false;
  std::latch begun(1);
  const std::jthread other([&] {
    begun.count_down();
    try {
      registry::ChunkCodec(&stop).Compress(std::as_bytes(std::span(text)).first(text.size() / 2),
                                           19);
      other_ended = true;
    } catch (const registry::WorkStopped&) {
    }
  });
  begun.wait();
  EXPECT_MSB_ERROR(
      Snapshot::Push(ctx_.WithTimeout(milliseconds(500)), "text", At("text"), {.level = 19}, here_),
      ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_FALSE(other_ended);
  stop = true;
}

// Collects what a call reports.
struct Reports {
  std::vector<Progress> all = {};

  ProgressFunction Function() {
    return [this](const Progress& progress) { all.push_back(progress); };
  }
  // Expects the reports to be of one phase and not to decrease. Returns the last one.
  Progress Last(std::string_view phase) const {
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_LE(all[i].bytes_done, all[i].bytes_total);
      if (i == 0) continue;
      EXPECT_GE(all[i].bytes_done, all[i - 1].bytes_done);
      EXPECT_GE(all[i].bytes_saved, all[i - 1].bytes_saved);
    }
    if (all.empty()) throw std::runtime_error("no progress was reported");
    EXPECT_EQ(all.back().bytes_done, all.back().bytes_total) << phase;
    return all.back();
  }
};

TEST_F(NetworkTest, ReportsTheBytesThatCrossTheNetwork) {
  constexpr std::uint64_t kData = kChunks * kDataBytes;
  // So that several reports are made.
  proxy_->SetLatency(milliseconds(30));
  Reports pushed;
  Snapshot::Push(ctx_.WithProgress(pushed.Function()), "web", Far("web"), {}, here_);
  EXPECT_GE(pushed.all.size(), 3U);
  const Progress push = pushed.Last("push");
  // Noise cannot be compressed. The proxy counts the headers of requests as well.
  EXPECT_GE(push.bytes_done, kData);
  EXPECT_LE(push.bytes_done, proxy_->total());
  EXPECT_EQ(push.bytes_saved, 0U);

  Reports again;
  Snapshot::Push(ctx_.WithProgress(again.Function()), "web", Far("web:again"), {}, here_);
  const Progress repeated = again.Last("push");
  EXPECT_GE(repeated.bytes_saved, kData);
  EXPECT_LT(repeated.bytes_done, 64U << 10);

  Reports pulled;
  Snapshot::Pull(ctx_.WithProgress(pulled.Function()), Far("web"), "", {}, there_);
  EXPECT_GE(pulled.all.size(), 3U);
  EXPECT_GE(pulled.Last("pull").bytes_done, kData);
  EXPECT_EQ(pulled.all.back().bytes_saved, 0U);
}

TEST_F(NetworkTest, AProgressFunctionThatThrowsEndsTheCall) {
  const Context ctx =
      ctx_.WithProgress([](const Progress&) { throw std::runtime_error("enough"); });
  EXPECT_THROW(Snapshot::Push(ctx, "web", At("web"), {}, here_), std::runtime_error);
  Snapshot::Push(ctx_, "web", At("web"), {}, here_);
  EXPECT_THROW(Snapshot::Pull(ctx, At("web"), "", {}, there_), std::runtime_error);
  EXPECT_EQ(Snapshot::ListDir(ctx_, "", there_).size(), 0U);
}

}  // namespace
}  // namespace msb::test
