// SPDX-License-Identifier: Apache-2.0

#include "src/base/remove_tree.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "src/base/file.h"
#include "src/base/staging.h"
#include "tests/support/limits.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;
using test::ListTree;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;

void FillTree(const fs::path& dir) {
  for (int i = 0; i < 300; ++i) WriteFile(dir / ("file" + std::to_string(i)), "");
  WriteFile(dir / "a/b/c/d/e/f/file", "");
  WriteFile(dir / "a/b/c/file", "");
  WriteFile(dir / "x/y/file", "");
  fs::create_directories(dir / "x/empty/empty");
}

// Runs function in a child process. Returns its exit status, or -1 if it was killed.
int InChild(const std::function<int()>& function) {
  const pid_t child = fork();
  if (child == 0) _exit(function());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(RemoveTreeTest, RemovesATreeAndNothingThatItsLinksPointTo) {
  const TempDir dir;
  WriteFile(dir / "kept/file", "kept");
  WriteFile(dir / "tree/a/b/file", "gone");
  fs::create_directory_symlink(dir / "kept", dir / "tree/a/link");
  fs::create_symlink(dir / "kept/file", dir / "tree/file-link");
  RemoveTree(dir / "tree");
  EXPECT_FALSE(fs::exists(dir / "tree"));
  EXPECT_EQ(ReadFile(dir / "kept/file"), "kept");

  fs::create_directory_symlink("kept", dir / "link");
  RemoveTree(dir / "link");
  EXPECT_FALSE(fs::is_symlink(dir / "link"));
  EXPECT_EQ(ReadFile(dir / "kept/file"), "kept");
  EXPECT_NO_THROW(RemoveTree(dir / "absent"));
}

TEST(RemoveTreeTest, EmptiesADirectoryOfAnyDepth) {
  const TempDir dir;
  FillTree(dir / "tree");
  EXPECT_TRUE(RemoveContents(Context::Background(), OpenDirectory(dir / "tree").get()));
  EXPECT_TRUE(fs::is_empty(dir / "tree"));
}

// The permissions of the directory decide, not those of the file.
TEST(RemoveTreeTest, NamesTheEntryAndDescribesItsDirectory) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  constexpr uid_t kNobody = 65534;
  const TempDir parent(fs::temp_directory_path());
  const fs::path tree = parent / "tree";
  WriteFile(tree / "a/b/file", "");
  WriteFile(tree / "a/b/other", "");
  ASSERT_EQ(chown((tree / "a/b/file").c_str(), kNobody, kNobody), 0);
  for (const fs::path& dir : {parent.path(), tree}) fs::permissions(dir, fs::perms::all);
  const fs::path out = parent / "message";
  EXPECT_EQ(InChild([&] {
              if (seteuid(kNobody) != 0) return 1;
              try {
                RemoveTree(tree);
              } catch (const Error& e) {
                WriteFile(out, e.what());
                return e.kind() == ErrorKind::kIO ? 0 : 3;
              }
              return 2;
            }),
            0);
  const fs::path entry = tree / "a/b";
  const std::string message = test::ReadFile(out);
  EXPECT_TRUE(
      test::Names(message, {"cannot delete " + entry.native() + ": Permission denied",
                            "this process runs as user 65534 and " + entry.parent_path().native() +
                                " belongs to user 0 with mode 0755"}))
      << message;
}

TEST(RemoveTreeTest, NeedsOneDescriptorHoweverDeepTheTreeIs) {
  const TempDir dir;
  FillTree(dir / "tree");
  EXPECT_EQ(InChild([&] {
              const UniqueFd tree = OpenDirectory(dir / "tree");
              test::LeaveDescriptors(1);
              return RemoveContents(Context::Background(), tree.get()) ? 0 : 1;
            }),
            0);
  EXPECT_TRUE(fs::is_empty(dir / "tree"));
}

TEST(RemoveTreeTest, AStageIsDeletedWithoutAFreeDescriptor) {
  const TempDir dir;
  EXPECT_EQ(InChild([&] {
              Stage stage(dir.path());
              FillTree(stage.path());
              test::LeaveDescriptors(0);
              return 0;
            }),
            0);
  // _exit destroys no objects, but the stage has been destroyed before it.
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(RemoveTreeTest, AStageIsMadeCompletelyOrNotAtAll) {
  for (int free = 0; free < 4; ++free) {
    const TempDir dir;
    InChild([&] {
      test::LeaveDescriptors(free);
      try {
        const Stage stage(dir.path());
      } catch (const Error&) {
        return 1;
      }
      return 0;
    });
    EXPECT_TRUE(fs::is_empty(dir.path())) << free;
  }
}

TEST(RemoveTreeTest, MakesReadOnlyDirectoriesWritable) {
  const TempDir dir;
  FillTree(dir / "tree");
  fs::permissions(dir.path(), fs::perms::all);
  for (const char* name : {"tree/a/b/c", "tree/a/b", "tree/a", "tree/x/y", "tree"}) {
    fs::permissions(dir / name, fs::perms::owner_read | fs::perms::owner_exec);
  }
  // Root may write everywhere, so another user must try it.
  constexpr uid_t kNobody = 65534;
  const bool is_root = geteuid() == 0;
  if (is_root) test::RunCommand("chown -R 65534 " + (dir / "tree").native());
  const UniqueFd tree = OpenDirectory(dir / "tree");
  EXPECT_EQ(InChild([&] {
              if (is_root && setuid(kNobody) != 0) return 2;
              return RemoveContents(Context::Background(), tree.get()) ? 0 : 1;
            }),
            0);
  EXPECT_TRUE(fs::is_empty(dir / "tree"));
}

TEST(RemoveTreeTest, StopsWhenItsContextEnds) {
  const TempDir dir;
  FillTree(dir / "tree");
  const auto [ctx, cancel] = Context::Background().WithCancel();
  cancel();
  EXPECT_FALSE(RemoveContents(ctx, OpenDirectory(dir / "tree").get()));
  EXPECT_FALSE(fs::is_empty(dir / "tree"));
}

TEST(RemoveTreeTest, SeveralThreadsMayDeleteOneTree) {
  const TempDir dir;
  FillTree(dir / "tree");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { EXPECT_NO_THROW(RemoveTree(dir / "tree")); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(fs::exists(dir / "tree"));
}

}  // namespace
}  // namespace msb::base
