// SPDX-License-Identifier: Apache-2.0
//
// One of the processes that work on the home, with four threads that run random operations.

#ifndef MSB_TESTS_SOAK_WORKER_H_
#define MSB_TESTS_SOAK_WORKER_H_

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <shared_mutex>
#include <string>

#include "msb/msb.h"
#include "tests/soak/content.h"
#include "tests/soak/shared.h"

namespace msb::soak {

struct WorkerOptions {
  std::filesystem::path root = {};
  int index = 0;
  std::uint64_t seed = 0;
};

// A sandbox that only one process uses, so that the process knows the content of its disk. The
// mutex is locked exclusively to change the disk, and shared to snapshot, start, stop or remove the
// sandbox.
struct OwnSandbox {
  std::string name;
  std::shared_mutex mutex;
  std::optional<State> state;  // Empty if the content is not known.
  std::atomic<bool>* torn = nullptr;
};

// The data that the threads of a worker share.
struct Worker {
  explicit Worker(const WorkerOptions& options);

  Places places;
  int index;
  Shared& shared;
  std::array<OwnSandbox, kOwnSandboxes> own;
  std::atomic<int> logged = 0;
  // Clients of the same home. New sandboxes have the format of their source in one, and are
  // overlays in the other.
  Client client;
  Client qcow2_client;

 private:
  Config MakeConfig(std::optional<DiskFormat> upper_format);
};

// The snapshots, sandboxes and archives that all workers use.
inline constexpr int kSharedSnapshots = 10;
inline constexpr int kOwnSnapshots = 3;
inline constexpr int kSharedSandboxes = 5;
inline constexpr int kArchives = 8;
// Paths for archives at which the chaos thread places directories.
inline constexpr int kForeignArchives = 3;
std::string SharedSnapshot(int number);
std::string SharedSandbox(int number);
std::string OwnSandboxName(int worker, int number);
// The images that sandboxes are made from.
inline constexpr std::array<const char*, 3> kImages = {"small.raw", "large.raw", "small.qcow2"};

// Works until the phase is kStop. Returns the exit status.
int RunWorker(const WorkerOptions& options);

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_WORKER_H_
