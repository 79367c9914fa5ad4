// SPDX-License-Identifier: Apache-2.0
//
// The program starts quickly. tests/bench measures how quickly.

#include <gtest/gtest.h>

#include <climits>
#include <csignal>
#include <filesystem>

#include "tests/program/program_home.h"
#include "tests/support/syscall_tracer.h"

namespace msb::test {
namespace {

class StartupTest : public ProgramTest {};

// Loading the program takes about 1,000 system calls, most of them for the 40 libraries that it and
// libcurl need, and listing an empty home about 100.
TEST_F(StartupTest, ListInAnEmptyHomeMakesFewSystemCalls) {
  std::filesystem::create_directories(home_);
  int calls = 0;
  const TracedRun run = InterfereAtSyscall(
      INT_MAX,
      [&](const SystemCall&) {
        ++calls;
        return true;
      },
      [&] {
        signal(SIGTRAP, SIG_IGN);  // A traced process gets it when it executes a program.
        Execute(Command({"list", "--json"}), options_);
        return 127;
      },
      [](pid_t) {});
  EXPECT_EQ(run.exit_status, 0);
  EXPECT_GT(calls, 50);
  EXPECT_LT(calls, 2000);
}

}  // namespace
}  // namespace msb::test
