// SPDX-License-Identifier: Apache-2.0
//
// Walks through the system calls of every operation that changes a home: before each call the
// process is killed, or the call fails in every way in which it can fail, or the disk is full from
// that call on. In each case the operation must have been done completely or not at all, and every
// other call must work on the resulting home.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "tests/fault/fault_home.h"
#include "tests/fault/operations.h"
#include "tests/support/build.h"
#include "tests/support/call_interceptor.h"

namespace msb::test {
namespace {

// With a sanitizer only a sample of the calls: each try takes ten times as long.
int Step() { return HasSanitizer() ? 17 : 1; }

// Every call that can fail with EIO does so in one of the tries. Of the calls that can fail with
// another error, one in four does, or each of them if MSB_FAULTS_ALL is set.
constexpr int kOtherErrorsStep = 4;

constexpr const char* kWasPublished = "was published nevertheless";

class WalkTest : public ::testing::TestWithParam<Operation> {
 protected:
  // Runs the operation in a child process, with decide in control of these of its calls.
  InterceptedRun Try(const std::vector<long>& calls, const Decide& decide) {
    home_.Reset();
    return RunIntercepted(calls, decide, [&](const std::function<void()>& begin) {
      try {
        GetParam().run(home_, begin);
        return std::string("done");
      } catch (const Error& e) {
        return fmt::format("{}: {}", ErrorKindName(e.kind()), e.what());
      }
    });
  }

  // Checks the home after a try. when describes the interference, for messages.
  void ExpectSound(const InterceptedRun& run, const std::string& when) {
    SCOPED_TRACE(fmt::format("{}: {} {}: {}", GetParam().name, when, run.first, run.report));
    EXPECT_EQ(run.crash, "");
    const Outcome outcome{.done = !run.killed && run.report == "done",
                          .refused = !run.killed && run.report != "done",
                          .published = run.report.find(kWasPublished) != std::string::npos};
    if (outcome.refused) {
      EXPECT_TRUE(run.report.starts_with("IO: ")) << run.report;
    }
    const std::string state = fmt::format("{}{}{}\n{}{}", outcome.done, outcome.refused,
                                          outcome.published, home_.State(), home_.Index());
    // An equal state has been checked before.
    if (!checked_.insert(state).second) return;
    Expect("the outcome", [&] { GetParam().expect(home_, outcome); });
    home_.ExpectEveryCallWorks(GetParam().touched, [&] { Again(); });
  }

  void Again() {
    try {
      GetParam().run(home_, [] {});
    } catch (const Error& e) {
      if (!GetParam().again_throws.contains(e.kind())) throw;
    }
  }

  // Interferes with the n-th call for which may_fail is true, for each n in turn (in steps of
  // step). If sticky is set, interferes with all later ones as well.
  void Walk(int how, const std::function<bool(const InterceptedCall&)>& may_fail, bool sticky,
            const std::string& when) {
    const std::vector<long> calls =
        how == kKillChild ? CallsThatMayChange() : CallsThatCanFailWith(how);
    int tries = 0;
    int step = how == kKillChild ? Step() : Step() * GetParam().fault_step;
    if (how != kKillChild && how != EIO && !sticky && std::getenv("MSB_FAULTS_ALL") == nullptr) {
      step *= kOtherErrorsStep;
    }
    for (int n = std::max(how, 0) % step;; n += step) {
      int count = 0;
      const InterceptedRun run = Try(calls, [&](const InterceptedCall& call) {
        if (!sticky && count > n) return kLetAllThrough;
        if (!may_fail(call)) return 0;
        return count++ == n || (sticky && count > n) ? how : 0;
      });
      ++tries;
      ExpectSound(run, fmt::format("{} at {}", when, n));
      if (run.interferences == 0) {
        EXPECT_EQ(run.report, "done");
        break;
      }
      if (HasFailure() && std::getenv("MSB_FAULTS_ALL") == nullptr) break;
    }
    RecordProperty(when, fmt::format("{} tries, {} states so far", tries, checked_.size()));
  }

  FaultHome home_{GetParam().prepare};
  std::set<std::string> checked_;
};

TEST_P(WalkTest, AKillLeavesAHomeThatWorks) { Walk(kKillChild, MayChange, false, "killed"); }

TEST_P(WalkTest, AFaultLeavesAHomeThatWorks) {
  for (const int error : {EIO, ENOSPC, EACCES, EXDEV, EMFILE, EPERM, EMLINK, ENOLCK}) {
    Walk(
        error, [error](const InterceptedCall& call) { return CanFailWith(call, error); }, false,
        strerrorname_np(error));
  }
}

TEST_P(WalkTest, AFullDiskLeavesAHomeThatWorks) { Walk(ENOSPC, NeedsSpace, true, "full"); }

INSTANTIATE_TEST_SUITE_P(Operations, WalkTest, ::testing::ValuesIn(Operations()),
                         [](const auto& operation) { return operation.param.name; });

}  // namespace
}  // namespace msb::test
