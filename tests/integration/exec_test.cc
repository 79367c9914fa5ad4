// SPDX-License-Identifier: Apache-2.0
//
// What Exec refuses before it asks a backend, and what the local backend answers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/support.h"

namespace msb::test {
namespace {

using Words = std::vector<std::string>;

class ExecTest : public ::testing::Test {
 protected:
  ExecTest() {
    MakeSparseFile(dir_ / "base.img", 1 << 20, {});
    CreateSandbox(ctx_, "a", {WithImage(dir_ / "base.img"), WithDetached()}, client_).Close();
  }

  ExecResult Exec(const Words& command, const ExecOptions& options = {}) {
    return GetSandbox(ctx_, "a", client_).Exec(ctx_, command, options);
  }

  const Context ctx_ = Soon();
  TempDir dir_;
  Client client_ = LocalClient(dir_ / "home");
};

TEST_F(ExecTest, RefusesInvalidCommands) {
  EXPECT_MSB_ERROR(Exec({}), ErrorKind::kInvalidArgument, "the command is empty",
                   "pass the name of a program");
  EXPECT_MSB_ERROR(Exec({""}), ErrorKind::kInvalidArgument, "the command is empty");
  EXPECT_MSB_ERROR(Exec({"a", std::string("b\0c", 3)}), ErrorKind::kInvalidArgument,
                   "'b\\x00c' contains a NUL byte");
  EXPECT_MSB_ERROR(Exec({"a", "\xff"}), ErrorKind::kInvalidArgument, "'\\xff' is not UTF-8",
                   "pass bytes in the input");
}

TEST_F(ExecTest, RefusesInvalidOptions) {
  EXPECT_MSB_ERROR(Exec({"a"}, {.env = {{"", "x"}}}), ErrorKind::kInvalidArgument, "variable ''",
                   "must not be empty");
  EXPECT_MSB_ERROR(Exec({"a"}, {.env = {{"A=B", "x"}}}), ErrorKind::kInvalidArgument,
                   "variable 'A=B'", "must not be empty or contain '='");
  EXPECT_MSB_ERROR(Exec({"a"}, {.env = {{std::string("A\0", 2), "x"}}}),
                   ErrorKind::kInvalidArgument, "'A\\x00' contains a NUL byte");
  EXPECT_MSB_ERROR(Exec({"a"}, {.env = {{"A", "\xff"}}}), ErrorKind::kInvalidArgument,
                   "'\\xff' is not UTF-8");
  EXPECT_MSB_ERROR(Exec({"a"}, {.user = "\xff"}), ErrorKind::kInvalidArgument, "the user",
                   "not UTF-8");
  EXPECT_MSB_ERROR(Exec({"a"}, {.cwd = std::string("/\0", 2)}), ErrorKind::kInvalidArgument,
                   "the directory", "NUL");
  EXPECT_MSB_ERROR(Exec({"a"}, {.cwd = "work"}), ErrorKind::kInvalidArgument,
                   "the directory 'work'", "an absolute path in the guest");
}

TEST_F(ExecTest, TheLocalBackendHasNoGuest) {
  EXPECT_MSB_ERROR(Exec({"true"}), ErrorKind::kUnsupportedOperation, "the local backend",
                   "sandbox 'a'", "use the qemu or the microsandbox backend");
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "a", client_).Console(), ErrorKind::kUnsupportedOperation,
                   "the local backend", "sandbox 'a'");
}

TEST_F(ExecTest, AClosedSandboxIsInvalid) {
  Sandbox sandbox = CreateSandbox(ctx_, "b", {WithImage(dir_ / "base.img")}, client_);
  sandbox.Close();
  EXPECT_MSB_ERROR(sandbox.Exec(ctx_, {"true"}), ErrorKind::kInvalidHandle, "sandbox");
  EXPECT_MSB_ERROR(sandbox.Console(), ErrorKind::kInvalidHandle, "sandbox");
}

}  // namespace
}  // namespace msb::test
