// What the benchmarks share: timing alternating cases, and measuring memory.

#ifndef MSB_TESTS_BENCH_BENCH_H_
#define MSB_TESTS_BENCH_BENCH_H_

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace msb::bench {

// Throws unless the command succeeds.
void Shell(const std::string& command);

struct Case {
  std::string name;
  std::function<void()> prepare;  // Not timed.
  std::function<void()> run;
};

// Runs the cases in turn, that many times after one to warm up, and prints each one's median.
// Returns the medians, seconds.
std::vector<double> Compare(const std::vector<Case>& cases, int runs);

void PrintRatio(const char* what, double numerator, double denominator);

// The most memory that run uses, in MiB, in a process of its own.
double PeakMemory(const std::function<void()>& run);

// The program: DIR IMAGE [RUNTIME] are its arguments, and given to run, an empty text for no
// runtime.
int Main(
    int argc, char** argv,
    const std::function<void(const std::filesystem::path& dir, const std::filesystem::path& image,
                             const std::string& runtime)>& run);

}  // namespace msb::bench

#endif  // MSB_TESTS_BENCH_BENCH_H_
