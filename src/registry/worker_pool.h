// SPDX-License-Identifier: Apache-2.0
//
// Runs tasks that compress, decompress and hash chunks on all cores.

#ifndef MSB_SRC_REGISTRY_WORKER_POOL_H_
#define MSB_SRC_REGISTRY_WORKER_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "src/registry/chunk_codec.h"

namespace msb::registry {

// The maximum number of threads of a pool. Each has a chunk in memory.
inline constexpr unsigned kMaxWorkers = 8;

// A WorkerPool runs tasks in threads of its own. A task gets its thread's codec, and returns a
// function for the thread that owns the pool, which TakeResults calls.
class WorkerPool {
 public:
  using Result = std::function<void()>;
  using Task = std::function<Result(ChunkCodec& codec)>;

  // Workers call wake after each task. All functions must be called by the same thread. The pool
  // has one thread for each core, but at most max_workers.
  explicit WorkerPool(std::function<void()> wake, unsigned max_workers = kMaxWorkers);
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;
  // Drops the tasks that have not begun, stops the others, and waits for them.
  ~WorkerPool();

  void Post(Task task);
  // Calls the results of the tasks that have ended. Rethrows the exception of a task.
  void TakeResults();
  // Drops the tasks that have not begun and all results and failures, and stops the tasks that have
  // begun: their codecs throw WorkStopped, usually within 100 ms. Waits for them. For an owner of
  // tasks that is destroyed before the pool.
  void Abandon() noexcept;

 private:
  void Work(const std::stop_token& stop);

  const std::function<void()> wake_;
  std::atomic<bool> abandoned_ = false;  // The stop flag of the codecs.
  std::mutex mutex_;
  std::condition_variable_any posted_;
  std::condition_variable ended_;
  // The fields from here to failure_ are guarded by mutex_.
  std::deque<Task> tasks_;
  std::size_t running_ = 0;
  std::vector<Result> results_;
  std::exception_ptr failure_;
  std::vector<std::jthread> threads_;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_WORKER_POOL_H_
