// SPDX-License-Identifier: Apache-2.0

#include "src/registry/worker_pool.h"

#include <algorithm>
#include <optional>
#include <system_error>
#include <utility>

#include "src/base/core_count.h"
#include "src/base/throw.h"

namespace msb::registry {

WorkerPool::WorkerPool(std::function<void()> wake, unsigned max_workers) : wake_(std::move(wake)) {
  const unsigned count = std::min(base::CoreCount(), max_workers);
  for (unsigned i = 0; i < count; ++i) {
    try {
      threads_.emplace_back([this](const std::stop_token& stop) { Work(stop); });
    } catch (const std::system_error& e) {
      if (!threads_.empty()) break;  // Fewer threads only take longer.
      base::Throw(ErrorKind::kIO, "cannot create a thread: {}; raise the limit of threads",
                  e.what());
    }
  }
}

WorkerPool::~WorkerPool() {
  abandoned_ = true;
  for (std::jthread& thread : threads_) thread.request_stop();
}

void WorkerPool::Post(Task task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  posted_.notify_one();
}

void WorkerPool::TakeResults() {
  std::vector<Result> results;
  {
    const std::lock_guard lock(mutex_);
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    results.swap(results_);
  }
  for (const Result& result : results) result();
}

void WorkerPool::Abandon() noexcept {
  std::unique_lock lock(mutex_);
  tasks_.clear();
  abandoned_ = true;
  ended_.wait(lock, [&] { return running_ == 0; });
  abandoned_ = false;
  results_.clear();
  failure_ = nullptr;
}

void WorkerPool::Work(const std::stop_token& stop) {
  std::optional<ChunkCodec> codec;  // Created by the first task.
  std::unique_lock lock(mutex_);
  while (posted_.wait(lock, stop, [&] { return !tasks_.empty(); }) && !stop.stop_requested()) {
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    ++running_;
    lock.unlock();
    Result result;
    std::exception_ptr failure;
    try {
      if (!codec) codec.emplace(&abandoned_);
      result = task(*codec);
      task = nullptr;
      codec->Trim();
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (failure) {
      failure_ = failure;
    } else {
      results_.push_back(std::move(result));
    }
    --running_;
    ended_.notify_all();
    wake_();
  }
}

}  // namespace msb::registry
