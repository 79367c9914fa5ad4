// SPDX-License-Identifier: Apache-2.0

#include "src/registry/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <semaphore>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>

#include "tests/support/support.h"

namespace msb::registry {
namespace {

// Waits for one task, and calls its result.
void TakeOne(WorkerPool& pool, std::counting_semaphore<>& woken) {
  woken.acquire();
  pool.TakeResults();
}

TEST(WorkerPoolTest, CallsResultsInTheThreadThatTakesThem) {
  std::counting_semaphore<> woken(0);
  WorkerPool pool([&] { woken.release(); });
  std::thread::id worker;
  std::thread::id taker;
  pool.Post([&](ChunkCodec&) {
    worker = std::this_thread::get_id();
    return [&] { taker = std::this_thread::get_id(); };
  });
  TakeOne(pool, woken);
  EXPECT_EQ(taker, std::this_thread::get_id());
  EXPECT_NE(worker, taker);
}

TEST(WorkerPoolTest, RethrowsTheExceptionOfATask) {
  std::counting_semaphore<> woken(0);
  WorkerPool pool([&] { woken.release(); });
  pool.Post([](ChunkCodec&) -> WorkerPool::Result { throw std::runtime_error("broken"); });
  EXPECT_THROW(TakeOne(pool, woken), std::runtime_error);
  // The thread has survived.
  bool done = false;
  pool.Abandon();
  pool.Post([&](ChunkCodec&) { return [&] { done = true; }; });
  TakeOne(pool, woken);
  EXPECT_TRUE(done);
}

TEST(WorkerPoolTest, AbandonWaitsForRunningTasksAndDropsTheOthers) {
  std::counting_semaphore<> begun(0);
  std::counting_semaphore<> go(0);
  std::atomic<int> ended = 0;
  WorkerPool pool([] {});
  const auto task = [&](ChunkCodec&) -> WorkerPool::Result {
    begun.release();
    go.acquire();
    ++ended;
    return [] { ADD_FAILURE() << "the result of an abandoned task was called"; };
  };
  constexpr int kTasks = 100;
  for (int i = 0; i < kTasks; ++i) pool.Post(task);
  begun.acquire();
  {
    const std::jthread abandoning([&] { pool.Abandon(); });
    // Enough for every task that may have begun; the others are dropped or run before.
    go.release(kTasks);
  }
  const int ended_by_then = ended;
  EXPECT_GE(ended_by_then, 1);
  pool.TakeResults();
  EXPECT_EQ(ended, ended_by_then);
}

// Compressing this chunk without interruption takes 5 to 20 s, which must not delay the end of a
// call.
TEST(WorkerPoolTest, AbandonStopsAWorkerThatCompresses) {
  std::counting_semaphore<> begun(0);
  WorkerPool pool([] {});
  std::string chunk;
  while (chunk.size() < (8 << 20)) {
    chunk += test::Noise(100 + chunk.size() % 901, static_cast<std::uint32_t>(chunk.size())) +
             chunk.substr(0, 1000);
  }
  std::atomic<bool> compressed = false;
  pool.Post([&](ChunkCodec& codec) -> WorkerPool::Result {
    begun.release();
    codec.Compress(std::as_bytes(std::span(chunk)), 19);
    compressed = true;
    return [] { ADD_FAILURE() << "the result of an abandoned task was called"; };
  });
  begun.acquire();
  pool.Abandon();
  EXPECT_FALSE(compressed) << "it stops in the middle of the chunk";
  pool.TakeResults();  // Reports no failure.
  // The pool still works.
  std::counting_semaphore<> done(0);
  pool.Post([&](ChunkCodec& codec) {
    codec.Compress(std::as_bytes(std::span(chunk)).first(1000), 19);
    return [&] { done.release(); };
  });
  while (!done.try_acquire()) pool.TakeResults();
}

}  // namespace
}  // namespace msb::registry
