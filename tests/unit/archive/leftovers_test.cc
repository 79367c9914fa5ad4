// SPDX-License-Identifier: Apache-2.0

#include "src/archive/leftovers.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/support.h"

namespace msb::archive {
namespace {

namespace fs = std::filesystem;
using test::ListTree;
using test::ReadFile;
using test::WriteFile;

const std::string kContent = "left content";

class LeftoversTest : public ::testing::Test {
 protected:
  LeftoversTest() {
    fs::create_directory(stage_);
    WriteFile(outside_ / "file", kContent);
  }

  int StageFd() const { return fd_.get(); }

  const test::TempDir dir_;
  const fs::path stage_ = dir_ / "stage";
  const fs::path outside_ = dir_ / "outside";
  const base::UniqueFd fd_ = [this] {
    fs::create_directories(stage_);
    return base::OpenDirectory(stage_);
  }();
};

TEST_F(LeftoversTest, KeepsARegularFileOfTheSize) {
  WriteFile(stage_ / "a/b/file", kContent);
  fs::permissions(stage_ / "a/b/file", fs::perms::owner_read);
  const StagedFile file = ReuseFile(StageFd(), "a/b/file", kContent.size());
  EXPECT_TRUE(file.is_left);
  base::WriteExactly(file.fd.get(), "L", 1, 0);
  EXPECT_EQ(ReadFile(stage_ / "a/b/file"), "Left content");
}

TEST_F(LeftoversTest, ReplacesAnythingElseByAHole) {
  const fs::path file = stage_ / "a/b/file";
  const std::vector<std::function<void()>> leftovers = {
      [&] {},
      [&] { WriteFile(stage_ / "a", "a file"); },
      [&] { fs::create_directory_symlink(outside_, stage_ / "a"); },
      [&] {
        fs::create_directory(stage_ / "a");
        fs::create_directory_symlink(outside_, stage_ / "a/b");
      },
      [&] { WriteFile(file, kContent + "longer"); },
      [&] { WriteFile(file, ""); },
      [&] { WriteFile(file / "sub/file", kContent); },
      [&] {
        fs::create_directories(file.parent_path());
        fs::create_symlink(outside_ / "file", file);
      },
      [&] {
        fs::create_directories(file.parent_path());
        fs::create_hard_link(outside_ / "file", file);
      },
      [&] {
        fs::create_directories(file.parent_path());
        ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
      },
  };
  for (std::size_t i = 0; i < leftovers.size(); ++i) {
    const testing::ScopedTrace trace(__FILE__, __LINE__, std::to_string(i));
    fs::remove_all(stage_ / "a");
    leftovers[i]();
    const StagedFile opened = ReuseFile(StageFd(), "a/b/file", kContent.size());
    EXPECT_FALSE(opened.is_left);
    EXPECT_EQ(ReadFile(file), std::string(kContent.size(), '\0'));
    base::WriteExactly(opened.fd.get(), "new", 3, 0);
    EXPECT_EQ(ReadFile(file).substr(0, 3), "new");
    EXPECT_EQ(ReadFile(outside_ / "file"), kContent);
    EXPECT_EQ(ListTree(outside_).size(), 1U);
  }
}

TEST_F(LeftoversTest, KeepsOnlyTheDisks) {
  const std::vector<artifact::Layer> layers = {
      {.file = "upper.raw", .file_bytes = kContent.size()},
      {.file = "any.raw"},
      {.file = "short.raw", .file_bytes = kContent.size() + 1},
      {.file = "linked.raw", .file_bytes = kContent.size()},
      {.file = "symlink.raw", .file_bytes = kContent.size()},
      {.file = "directory.raw"},
      {.file = "layers/one.raw", .file_bytes = kContent.size()},
  };
  for (const char* name :
       {"upper.raw", "any.raw", "short.raw", "snapshot.json", "layers/one.raw", "layers/two.raw",
        "layersother/one.raw", "directory.raw/file", "sub/upper.raw", "layers/sub/one.raw"}) {
    WriteFile(stage_ / name, kContent);
  }
  fs::create_hard_link(outside_ / "file", stage_ / "linked.raw");
  fs::create_symlink(outside_ / "file", stage_ / "symlink.raw");
  KeepDisks(StageFd(), layers);
  std::vector<std::string> left;
  for (const auto& [path, content] : ListTree(stage_)) left.push_back(path);
  EXPECT_EQ(left, (std::vector<std::string>{"any.raw", "layers", "layers/one.raw", "upper.raw"}));
  EXPECT_EQ(ReadFile(outside_ / "file"), kContent);
}

TEST_F(LeftoversTest, DoesNotLookForDisksBehindALink) {
  WriteFile(outside_ / "one.raw", kContent);
  fs::create_directory_symlink(outside_, stage_ / "layers");
  KeepDisks(StageFd(), {{.file = "layers/one.raw", .file_bytes = kContent.size()}});
  EXPECT_TRUE(ListTree(stage_).empty());
  EXPECT_EQ(ReadFile(outside_ / "one.raw"), kContent);
}

}  // namespace
}  // namespace msb::archive
