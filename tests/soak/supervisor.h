// SPDX-License-Identifier: Apache-2.0
//
// Runs the workers, kills one of them each second, and has the home checked after each round.

#ifndef MSB_TESTS_SOAK_SUPERVISOR_H_
#define MSB_TESTS_SOAK_SUPERVISOR_H_

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "tests/soak/chaos.h"
#include "tests/soak/check.h"
#include "tests/soak/peer.h"
#include "tests/soak/shared.h"

namespace msb::soak {

struct SoakOptions {
  std::filesystem::path root = {};  // A new directory for the run.
  std::chrono::seconds duration{60};
  std::chrono::seconds round{10};
  std::uint64_t seed = 1;
  std::filesystem::path peer;  // A released runtime; empty for none.
  bool keep = false;           // Keep root also if nothing was found.
};

class Supervisor {
 public:
  explicit Supervisor(const SoakOptions& options);
  // Returns the exit status: 1 if there are findings.
  int Run();

 private:
  struct Process {
    pid_t pid = 0;
    std::uint64_t starts = 0;
  };

  void MakePlaces();
  void StartWorker(int worker);
  void KillWorker(int worker);
  // Stops a worker for a moment at an arbitrary point, so that operations of others come in
  // between.
  void Freeze(int worker) const;
  // Reports and restarts workers that have ended by themselves.
  void CheckAlive();
  void RunRound();
  // Waits until no operation runs. Reports workers that do not become idle, and restarts them.
  void Pause();
  bool IsIdle(int worker) const;
  void ReportStuck(int worker);
  void CheckResources();
  void EndWorkers();
  // Prints the statistics and the findings. Returns the number of findings.
  std::size_t Report();

  const SoakOptions options_;
  const Places places_;
  Shared* shared_ = nullptr;
  std::array<Process, kWorkers> processes_{};
  std::mt19937_64 random_;
  std::optional<Chaos> chaos_;
  std::optional<Checker> checker_;
  std::optional<Peer> peer_;
  int kills_ = 0;
  int rounds_ = 0;
  // Maxima of worker 0, which is never killed, during the first kWarmUp rounds.
  std::size_t most_descriptors_ = 0;
  std::size_t most_threads_ = 0;
};

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_SUPERVISOR_H_
