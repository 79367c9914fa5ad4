// SPDX-License-Identifier: Apache-2.0
//
// Measures how long the program msb-snapshot takes to start.

#include <filesystem>
#include <string>

#include "tests/bench/bench.h"

namespace {

namespace fs = std::filesystem;

void Run(const fs::path& dir, const fs::path&, const std::string&) {
  const std::string home = dir / "program-home";
  const std::string list = "exec '" MSB_BENCH_PROGRAM "' list --home '" + home + "' > /dev/null";
  fs::remove_all(home);
  msb::bench::Compare(
      {{"sh -c true", [] {}, [] { msb::bench::Shell("exec true"); }},
       {"msb-snapshot --version", [] {},
        [] { msb::bench::Shell("exec '" MSB_BENCH_PROGRAM "' --version >/dev/null"); }},
       {"msb-snapshot list, empty home", [] {}, [&] { msb::bench::Shell(list); }}},
      20);
  fs::remove_all(home);
}

}  // namespace

int main(int argc, char** argv) { return msb::bench::Main(argc, argv, Run); }
