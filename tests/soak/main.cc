// SPDX-License-Identifier: Apache-2.0
//
// soak: many processes work on one home at the same time and are killed at random moments, while
// the results that they report are compared with the content of the home. docs/reliability.md
// describes it.

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tests/soak/supervisor.h"
#include "tests/soak/worker.h"
#include "tests/support/build.h"

namespace {

constexpr std::string_view kUsage =
    R"(usage: soak [--seconds N | --minutes N] [--seed N] [--home DIR] [--peer PROGRAM] [--keep]

Runs 6 processes of 4 threads at random operations on one home, kills one each second, and checks
after each round of 10 s that nothing was lost. Exits with 1 if something was found, and keeps the
directory then.

  --home DIR      A new directory for the run; default: one below the build directory.
  --peer PROGRAM  A released runtime, msb-0.6.18 or msb-0.7.2, that works on the same home.
  --keep          Keep the directory also if nothing was found.
)";

std::uint64_t NumberOf(std::string_view text) {
  std::uint64_t number = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size()) {
    throw std::invalid_argument(fmt::format("'{}' is not a number", text));
  }
  return number;
}

int Run(int argc, char** argv) {
  msb::soak::SoakOptions options;
  std::optional<int> worker;
  options.seed = std::random_device()() % 1'000'000;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--keep") {
      options.keep = true;
      continue;
    }
    if (i + 1 == argc) throw std::invalid_argument(fmt::format("bad argument '{}'", option));
    const std::string_view value = argv[++i];
    if (option == "--seconds") {
      options.duration = std::chrono::seconds(NumberOf(value));
    } else if (option == "--minutes") {
      options.duration = std::chrono::minutes(NumberOf(value));
    } else if (option == "--seed") {
      options.seed = NumberOf(value);
    } else if (option == "--home") {
      options.root = std::filesystem::absolute(value);
    } else if (option == "--peer") {
      options.peer = std::filesystem::absolute(value);
    } else if (option == "--worker") {
      worker = static_cast<int>(NumberOf(value));
    } else {
      throw std::invalid_argument(fmt::format("bad argument '{}'", option));
    }
  }
  if (worker) {
    return msb::soak::RunWorker({.root = options.root, .index = *worker, .seed = options.seed});
  }
  if (options.root.empty()) {
    options.root = msb::test::ScratchDir() / fmt::format("soak-{}", getpid());
  }
  return msb::soak::Supervisor(options).Run();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run(argc, argv);
  } catch (const std::invalid_argument& e) {
    fmt::print(stderr, "soak: {}\n{}", e.what(), kUsage);
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "soak: {}\n", e.what());
    return 2;
  }
}
