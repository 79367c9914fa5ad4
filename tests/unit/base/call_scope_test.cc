// SPDX-License-Identifier: Apache-2.0

#include "src/base/call_scope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace msb::base {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class CallScopeTest : public ::testing::Test {
 protected:
  std::vector<std::string> logged_;
  LogFunction log_ =
      DeferredLog([this](std::string_view message) { logged_.emplace_back(message); });
};

TEST_F(CallScopeTest, MessagesOutsideOfACallArriveAtOnce) {
  log_("now");
  EXPECT_THAT(logged_, ElementsAre("now"));
}

TEST_F(CallScopeTest, MessagesArriveWhenTheOutermostCallEnds) {
  {
    const CallScope outer;
    {
      const CallScope inner;
      log_("first");
    }
    log_("second");
    EXPECT_THAT(logged_, IsEmpty());
  }
  EXPECT_THAT(logged_, ElementsAre("first", "second"));
}

TEST_F(CallScopeTest, MessagesOfACallThatThrowsArrive) {
  EXPECT_THROW(
      {
        const CallScope scope;
        log_("before");
        throw std::runtime_error("failed");
      },
      std::runtime_error);
  EXPECT_THAT(logged_, ElementsAre("before"));
}

TEST_F(CallScopeTest, MessagesOfOtherThreadsArriveAtOnce) {
  const CallScope scope;
  std::thread([this] { log_("from a thread"); }).join();
  EXPECT_THAT(logged_, ElementsAre("from a thread"));
}

TEST_F(CallScopeTest, ACallFromALogFunctionHasMessagesOfItsOwn) {
  const LogFunction calls = DeferredLog([this](std::string_view message) {
    const CallScope scope;
    log_("because of " + std::string(message));
    logged_.emplace_back(message);
  });
  {
    const CallScope scope;
    calls("a");
    calls("b");
  }
  EXPECT_THAT(logged_, ElementsAre("a", "because of a", "b", "because of b"));
}

TEST_F(CallScopeTest, ALogFunctionThatThrowsIsIgnored) {
  const LogFunction throws = DeferredLog([](std::string_view) { throw 1; });
  EXPECT_NO_THROW(throws("now"));
  {
    const CallScope scope;
    throws("later");
    log_("after");
  }
  EXPECT_THAT(logged_, ElementsAre("after"));
}

}  // namespace
}  // namespace msb::base
