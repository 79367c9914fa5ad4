// SPDX-License-Identifier: Apache-2.0
//
// Helpers that the benchmarks share: timing of alternating cases, and peak memory.

#ifndef MSB_TESTS_BENCH_BENCH_H_
#define MSB_TESTS_BENCH_BENCH_H_

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace msb::bench {

// Runs a shell command. Throws unless it succeeds.
void Shell(const std::string& command);

// Prints the median and the range of times in seconds. Returns the median.
double Report(const std::string& name, std::vector<double> seconds);

struct Case {
  std::string name;
  std::function<void()> prepare;  // Not timed.
  std::function<void()> run;
};

// Runs the cases in turn, once to warm up and then runs times, with a sync(1) before each run.
// Prints the median and the range of each case. Returns the medians in seconds.
std::vector<double> Compare(const std::vector<Case>& cases, int runs);

void PrintRatio(const char* what, double numerator, double denominator);

// Calls run in a process of its own. Returns the peak memory of that process in MiB.
double PeakMemory(const std::function<void()>& run);

// The main function of a benchmark: passes the arguments DIR IMAGE [RUNTIME] to run, and returns
// the exit status. runtime is empty if it is not given.
int Main(
    int argc, char** argv,
    const std::function<void(const std::filesystem::path& dir, const std::filesystem::path& image,
                             const std::string& runtime)>& run);

}  // namespace msb::bench

#endif  // MSB_TESTS_BENCH_BENCH_H_
