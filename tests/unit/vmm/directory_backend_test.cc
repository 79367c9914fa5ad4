// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/directory_backend.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "src/base/throw.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

namespace fs = std::filesystem;
using test::ListTree;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;

// Boots nothing, and lets a test act at each step.
class TestBackend : public DirectoryBackend {
 public:
  explicit TestBackend(const fs::path& home)
      : DirectoryBackend(base::Home({.home = home}), std::nullopt,
                         {.is_published = [](const fs::path&, const std::string&) { return false; },
                          .check_unreplaced = [](const SnapshotSource&) {}},
                         [](std::string_view message) { ADD_FAILURE() << message; }) {}

  std::string_view Name() const override { return "test"; }

  std::function<void()> on_boot = [] {};
  std::function<void()> on_halt = [] {};

 protected:
  void Boot(const Context& /*ctx*/, Locked& sandbox, bool /*detached*/) override {
    on_boot();
    Save(sandbox);
  }
  void LetGo(Locked& /*sandbox*/) override {}
  void Halt(const Context& /*ctx*/, Locked& /*sandbox*/,
            std::chrono::milliseconds /*timeout*/) override {
    on_halt();
  }
};

class DirectoryBackendTest : public ::testing::Test {
 protected:
  DirectoryBackendTest() { WriteFile(dir_ / "base.img", test::Noise(100'352, 1)); }

  SandboxSpec Spec(const std::string& cpus_label) const {
    SandboxSpec spec;
    spec.name = "a";
    spec.image = dir_ / "base.img";
    spec.labels = {{"which", cpus_label}};
    spec.replace = true;
    spec.detached = true;
    return spec;
  }
  std::string Which() { return backend_.Inspect(ctx_, "a").labels.at("which"); }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path sandboxes_ = dir_ / "home/sandboxes";
  TestBackend backend_{dir_ / "home"};
};

TEST_F(DirectoryBackendTest, ReplacementThatCannotBootLeavesTheOldSandbox) {
  backend_.Create(ctx_, Spec("old"));
  backend_.on_boot = [] { base::Throw(ErrorKind::kIO, "it does not boot"); };
  EXPECT_MSB_ERROR(backend_.Create(ctx_, Spec("new")), ErrorKind::kIO, "it does not boot");
  EXPECT_EQ(Which(), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(sandboxes_), {}), 1);
  backend_.on_boot = [] {};
  backend_.Create(ctx_, Spec("new"));
  EXPECT_EQ(Which(), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(sandboxes_), {}), 1);
}

TEST_F(DirectoryBackendTest, NewSandboxThatCannotBootLeavesNothing) {
  backend_.on_boot = [] { base::Throw(ErrorKind::kIO, "it does not boot"); };
  EXPECT_MSB_ERROR(backend_.Create(ctx_, Spec("new")), ErrorKind::kIO, "it does not boot");
  EXPECT_TRUE(fs::is_empty(sandboxes_));
}

// Other software exchanges the sandbox after it was locked and stopped, just before the
// replacement.
TEST_F(DirectoryBackendTest, NeverReplacesADirectoryThatTookTheSandboxesPlace) {
  backend_.Create(ctx_, Spec("old"));
  backend_.on_halt = [&] {
    if (fs::exists(dir_ / "moved")) return;
    fs::rename(sandboxes_ / "a", dir_ / "moved");
    WriteFile(sandboxes_ / "a/file", "precious");
  };
  EXPECT_MSB_ERROR(backend_.Create(ctx_, Spec("new")), ErrorKind::kSandboxAlreadyExists,
                   "/sandboxes/a exists and is not a sandbox", "choose another name");
  EXPECT_EQ(ReadFile(sandboxes_ / "a/file"), "precious");
  EXPECT_EQ(std::distance(fs::directory_iterator(sandboxes_), {}), 1);
  EXPECT_MSB_ERROR(backend_.Remove(ctx_, "a"), ErrorKind::kSandboxNotFound, "no sandbox 'a' in ",
                   "/sandboxes");
  EXPECT_EQ(ReadFile(sandboxes_ / "a/file"), "precious");
}

TEST_F(DirectoryBackendTest, ReplacementWaitsForTheCallThatUsesTheSandbox) {
  backend_.Create(ctx_, Spec("old"));
  const base::LockedDirectory other = base::LockedDirectory::Open(ctx_, sandboxes_, "a");
  const auto before = ListTree(sandboxes_);
  const Context soon = ctx_.WithTimeout(std::chrono::milliseconds(200));
  EXPECT_MSB_ERROR(backend_.Create(soon, Spec("new")), ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_MSB_ERROR(backend_.Remove(ctx_.WithTimeout(std::chrono::milliseconds(20)), "a"),
                   ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_EQ(ListTree(sandboxes_), before);
}

}  // namespace
}  // namespace msb::vmm
