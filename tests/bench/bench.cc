// SPDX-License-Identifier: Apache-2.0

#include "tests/bench/bench.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <stdexcept>

namespace msb::bench {
namespace {

using Seconds = std::chrono::duration<double>;

double Time(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return Seconds(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

void Shell(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
}

double Report(const std::string& name, std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  std::printf("  %-44s %10.2f ms   (%.2f to %.2f)\n", name.c_str(), median * 1e3,
              seconds.front() * 1e3, seconds.back() * 1e3);
  std::fflush(stdout);
  return median;
}

std::vector<double> Compare(const std::vector<Case>& cases, int runs) {
  std::vector<std::vector<double>> times(cases.size());
  for (int round = 0; round <= runs; ++round) {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      cases[i].prepare();
      Shell("sync");
      const double seconds = Time(cases[i].run);
      if (round > 0) times[i].push_back(seconds);
    }
  }
  std::vector<double> medians;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    medians.push_back(Report(cases[i].name, times[i]));
  }
  return medians;
}

void PrintRatio(const char* what, double numerator, double denominator) {
  std::printf("  => %s: %.2f\n", what, numerator / denominator);
  std::fflush(stdout);
}

double PeakMemory(const std::function<void()>& run) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    try {
      run();
      _exit(0);
    } catch (const std::exception& e) {
      std::cerr << e.what() << "\n";
      _exit(1);
    }
  }
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  if (status != 0) throw std::runtime_error("the measured call failed");
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

int Main(
    int argc, char** argv,
    const std::function<void(const std::filesystem::path& dir, const std::filesystem::path& image,
                             const std::string& runtime)>& run) {
  if (argc != 3 && argc != 4) {
    std::cerr << "usage: " << argv[0] << " DIR IMAGE [RUNTIME]\n";
    return 2;
  }
  try {
    run(argv[1], argv[2], argc == 4 ? argv[3] : "");
    return 0;
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}

}  // namespace msb::bench
