// SPDX-License-Identifier: Apache-2.0

#include "tests/soak/worker.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/soak/actor.h"

namespace msb::soak {
namespace {

constexpr int kMostLogged = 500;

}  // namespace

std::string SharedSnapshot(int number) { return fmt::format("s{}", number); }
std::string SharedSandbox(int number) { return fmt::format("x{}", number); }
std::string OwnSandboxName(int worker, int number) { return fmt::format("p{}{}", worker, number); }

Worker::Worker(const WorkerOptions& options)
    : places{.root = options.root},
      index(options.index),
      shared(MapShared(places.root / "shared", /*create=*/false)),
      client(MakeConfig(std::nullopt)),
      qcow2_client(MakeConfig(DiskFormat::kQcow2)) {
  for (int i = 0; i < kOwnSandboxes; ++i) {
    OwnSandbox& sandbox = own[static_cast<std::size_t>(i)];
    sandbox.name = OwnSandboxName(index, i);
    sandbox.torn = &shared.torn[static_cast<std::size_t>(index)][static_cast<std::size_t>(i)];
  }
}

Config Worker::MakeConfig(std::optional<DiskFormat> upper_format) {
  Config config{.home = places.home, .backend = "local"};
  config.upper_format = upper_format;
  config.log = [this](std::string_view message) {
    const int number = logged++;
    if (number < kMostLogged) AppendLine(places.root / "log.txt", std::string(message));
    // A log function may call the library.
    if (number % 4 != 0) return;
    try {
      std::ignore = GetSandbox(Context::Background(), SharedSandbox(0), client);
    } catch (const Error&) {
      // The sandbox may not exist.
    }
  };
  return config;
}

int RunWorker(const WorkerOptions& options) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == 1) return 1;
  Worker worker(options);
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&worker, thread, seed = options.seed] {
      Actor(worker, thread, seed * kThreads + static_cast<std::uint64_t>(thread)).Run();
    });
  }
  return 0;
}

}  // namespace msb::soak
