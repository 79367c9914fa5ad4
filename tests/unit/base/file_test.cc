// SPDX-License-Identifier: Apache-2.0

#include "src/base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/missing_calls.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;

UniqueFd OpenFile(const fs::path& path, int flags = O_RDONLY) {
  return UniqueFd(open(path.c_str(), flags | O_CLOEXEC));
}

// Sets $HOME during its lifetime.
class ScopedHome {
 public:
  explicit ScopedHome(const char* home) {
    if (const char* old = std::getenv("HOME")) old_ = old;
    Set(home);
  }
  ScopedHome(const ScopedHome&) = delete;
  ScopedHome& operator=(const ScopedHome&) = delete;
  ~ScopedHome() { Set(old_ ? old_->c_str() : nullptr); }

 private:
  static void Set(const char* home) {
    if (home != nullptr) {
      setenv("HOME", home, 1);
    } else {
      unsetenv("HOME");
    }
  }
  std::optional<std::string> old_;
};

TEST(FileTest, OpensFilesAndDirectories) {
  const TempDir dir;
  WriteFile(dir / "file", "content");
  fs::create_directory(dir / "sub");
  const UniqueFd fd = OpenDirectory(dir.path());
  const Entry file = OpenEntryAt(fd.get(), "file");
  EXPECT_EQ(file.type, EntryType::kRegularFile);
  EXPECT_EQ(ReadAll(file.fd.get(), 100), "content");
  const Entry sub = OpenEntryAt(fd.get(), "sub");
  EXPECT_EQ(sub.type, EntryType::kDirectory);
  EXPECT_TRUE(ListDirectory(sub.fd.get()).empty());
}

TEST(FileTest, OpensNoSymbolicLink) {
  const TempDir dir;
  WriteFile(dir / "file", "content");
  fs::create_symlink("file", dir / "to-file");
  fs::create_symlink(".", dir / "to-dir");
  fs::create_symlink("nowhere", dir / "dangling");
  const UniqueFd fd = OpenDirectory(dir.path());
  for (const char* name : {"to-file", "to-dir", "dangling"}) {
    const Entry entry = OpenEntryAt(fd.get(), name);
    EXPECT_EQ(entry.type, EntryType::kSymlink) << name;
    EXPECT_FALSE(entry.fd) << name;
  }
}

TEST(FileTest, DoesNotWaitForTheOtherEndOfAFifo) {
  const TempDir dir;
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  const UniqueFd fd = OpenDirectory(dir.path());
  const Entry entry = OpenEntryAt(fd.get(), "fifo");
  EXPECT_EQ(entry.type, EntryType::kOther);
  EXPECT_FALSE(entry.fd);
}

TEST(FileTest, OpensNoDevice) {
  const UniqueFd fd = OpenDirectory("/dev");
  const Entry entry = OpenEntryAt(fd.get(), "null");
  EXPECT_EQ(entry.type, EntryType::kOther);
  EXPECT_FALSE(entry.fd);
}

TEST(FileTest, FindsNothingUnderANameThatIsNotThere) {
  const TempDir dir;
  const UniqueFd fd = OpenDirectory(dir.path());
  EXPECT_EQ(OpenEntryAt(fd.get(), "absent").type, EntryType::kAbsent);
  EXPECT_EQ(OpenEntryAt(fd.get(), std::string(300, 'n')).type, EntryType::kAbsent);
}

// On NFS, if another host has removed the directory.
TEST(FileTest, FindsNothingInAStaleDirectory) {
  const TempDir dir;
  WriteFile(dir / "file", "x");
  const UniqueFd fd = OpenDirectory(dir.path());
  for (const long call : {SYS_newfstatat, SYS_openat}) {
    const bool stat_fails = call == SYS_newfstatat;
    EXPECT_EQ(test::RunWithout({{"call", call, ESTALE}},
                               [&]() -> std::string {
                                 if (OpenEntryAt(fd.get(), "file").type != EntryType::kAbsent) {
                                   return "found";
                                 }
                                 return (TypeAt(fd.get(), "file") == EntryType::kAbsent) ==
                                                stat_fails
                                            ? "absent"
                                            : "another type";
                               }),
              "absent");
  }
}

TEST(FileTest, OpensFilesWithOddNames) {
  const TempDir dir;
  const UniqueFd fd = OpenDirectory(dir.path());
  for (const std::string name : {"-rf", "a b", "a\nb", "a\\b", "*", "\xff", "..."}) {
    WriteNewFileAt(fd.get(), name, name, 0600);
    EXPECT_EQ(ReadAll(OpenEntryAt(fd.get(), name).fd.get(), 100), name);
  }
}

TEST(FileTest, ReadsUpToTheLimitAndNotBeyond) {
  const TempDir dir;
  WriteFile(dir / "file", "12345");
  WriteFile(dir / "empty", "");
  const UniqueFd fd = OpenFile(dir / "file");
  EXPECT_EQ(ReadAll(fd.get(), 6), "12345");
  EXPECT_EQ(ReadAll(fd.get(), 5), "12345");
  EXPECT_EQ(ReadAll(fd.get(), 4), std::nullopt);
  EXPECT_EQ(ReadAll(fd.get(), 0), std::nullopt);
  EXPECT_EQ(ReadAll(OpenFile(dir / "empty").get(), 0), "");
}

TEST(FileTest, ReadsFilesWithoutASize) {
  const UniqueFd fd = OpenFile("/proc/self/status");
  const auto content = ReadAll(fd.get(), 1 << 20);
  ASSERT_TRUE(content);
  EXPECT_TRUE(content->starts_with("Name:"));
  EXPECT_TRUE(content->ends_with("\n"));
  EXPECT_EQ(ReadAll(fd.get(), 10), std::nullopt);
}

TEST(FileTest, RefusesToReadADirectory) {
  const TempDir dir;
  EXPECT_MSB_ERROR(ReadAll(OpenDirectory(dir.path()).get(), 1 << 20), ErrorKind::kIO,
                   "cannot read ", dir.path().filename(), "give the path of a file");
}

TEST(FileTest, ReadsAndWritesAtOffsets) {
  const TempDir dir;
  const UniqueFd fd = CreateFileAt(OpenDirectory(dir.path()).get(), "file", 0600);
  WriteExactly(fd.get(), "abc", 3, 5);
  std::string read(4, '?');
  ReadExactly(fd.get(), read.data(), 4, 4);
  EXPECT_EQ(read, std::string("\0abc", 4));
  EXPECT_MSB_ERROR(ReadExactly(fd.get(), read.data(), 4, 5), ErrorKind::kIO,
                   "/file ends at byte 8, 1 byte before its expected end", "try again");
  Resize(fd.get(), 6);
  EXPECT_EQ(ReadAll(fd.get(), 100), std::string("\0\0\0\0\0a", 6));
}

TEST(FileTest, ReportsAnUnwritableFile) {
  const TempDir dir;
  WriteFile(dir / "file", "old");
  const UniqueFd fd = OpenFile(dir / "file");
  EXPECT_MSB_ERROR(WriteExactly(fd.get(), "new", 3, 0), ErrorKind::kIO, "cannot write ", "/file: ");
  EXPECT_MSB_ERROR(Resize(fd.get(), 1), ErrorKind::kIO, "cannot resize ", "/file: ");
  EXPECT_EQ(ReadFile(dir / "file"), "old");
}

TEST(FileTest, CreatesOnlyAbsentFiles) {
  const TempDir dir;
  WriteFile(dir / "file", "old");
  fs::create_symlink("elsewhere", dir / "link");
  const UniqueFd fd = OpenDirectory(dir.path());
  EXPECT_MSB_ERROR(WriteNewFileAt(fd.get(), "file", "new", 0600), ErrorKind::kIO, "cannot create ",
                   "/file: ", "move it away");
  EXPECT_MSB_ERROR(WriteNewFileAt(fd.get(), "link", "new", 0600), ErrorKind::kIO, "cannot create ",
                   "/link: ", "move it away");
  EXPECT_EQ(ReadFile(dir / "file"), "old");
  EXPECT_FALSE(fs::exists(dir / "elsewhere"));
  WriteNewFileAt(fd.get(), "new", "content", 0600);
  EXPECT_EQ(ReadFile(dir / "new"), "content");
  EXPECT_EQ(StampOf(dir / "new")->mode, 0600U);
}

TEST(FileTest, ReplacesAFileAndLeavesNoTemporary) {
  const TempDir dir;
  const UniqueFd fd = OpenDirectory(dir.path());
  ReplaceFileAt(fd.get(), "file", "first and longer", 0600);
  ReplaceFileAt(fd.get(), "file", "second", 0600);
  EXPECT_EQ(ReadFile(dir / "file"), "second");
  EXPECT_EQ(test::ListTree(dir.path()).size(), 1U);
}

TEST(FileTest, ReplacesALinkAndNotItsTarget) {
  const TempDir dir;
  WriteFile(dir / "target", "old");
  fs::create_symlink("target", dir / "link");
  ReplaceFileAt(OpenDirectory(dir.path()).get(), "link", "new", 0600);
  EXPECT_EQ(ReadFile(dir / "target"), "old");
  EXPECT_EQ(ReadFile(dir / "link"), "new");
  EXPECT_FALSE(fs::is_symlink(dir / "link"));
}

TEST(FileTest, LeavesNoTemporaryWhenItCannotReplace) {
  const TempDir dir;
  fs::create_directory(dir / "taken");
  EXPECT_MSB_ERROR(ReplaceFileAt(OpenDirectory(dir.path()).get(), "taken", "new", 0600),
                   ErrorKind::kIO, "/taken: ", "give the path of a file");
  EXPECT_EQ(test::ListTree(dir.path()), (std::map<std::string, std::string>{{"taken", "dir"}}));
}

TEST(FileTest, ListsEveryNameSortedByItsBytes) {
  const TempDir dir;
  for (const char* name : {"b", "a", "Z", "\xc3\xa9", ".hidden", "a.b"}) WriteFile(dir / name, "");
  fs::create_directory(dir / "dir");
  fs::create_symlink("dir", dir / "link");
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  const UniqueFd fd = OpenDirectory(dir.path());
  for (int round = 0; round < 2; ++round) {
    std::vector<std::string> names;
    for (const DirectoryEntry& entry : ListDirectory(fd.get())) {
      names.push_back(entry.name + ": " + std::string(Describe(entry.type)));
    }
    const std::string file = ": a regular file";
    EXPECT_EQ(names,
              (std::vector<std::string>{".hidden" + file, "Z" + file, "a" + file, "a.b" + file,
                                        "b" + file, "dir: a directory", "fifo: a special file",
                                        "link: a symbolic link", "\xc3\xa9" + file}));
  }
}

TEST(FileTest, OpensDirectoriesOnly) {
  const TempDir dir;
  WriteFile(dir / "file", "");
  fs::create_symlink(".", dir / "link");
  EXPECT_TRUE(TryOpenDirectory(dir / "link"));
  EXPECT_FALSE(TryOpenDirectory(dir / "absent"));
  EXPECT_FALSE(TryOpenDirectory(dir / "file"));
  EXPECT_FALSE(TryOpenDirectory(dir / "file/below"));
  EXPECT_MSB_ERROR(OpenDirectory(dir / "absent"), ErrorKind::kIO, "cannot open directory ",
                   "/absent: ", "create it, or correct the path");
  EXPECT_MSB_ERROR(OpenDirectory(dir / "file"), ErrorKind::kIO, "cannot open directory ",
                   "/file: ", "not a directory: correct the path");
}

TEST(FileTest, MakesADirectoryWithItsParents) {
  const TempDir dir;
  EXPECT_TRUE(MakeDirectory(dir / "a/b/c"));
  EXPECT_TRUE(MakeDirectory(dir / "a/b/c"));
  EXPECT_TRUE(fs::is_directory(dir / "a/b/c"));
  WriteFile(dir / "file", "");
  EXPECT_MSB_ERROR(MakeDirectory(dir / "file"), ErrorKind::kIO,
                   "/file: ", "not a directory: correct the path");
  EXPECT_MSB_ERROR(MakeDirectory(dir / "file/below"), ErrorKind::kIO,
                   "/file: ", "not a directory: correct the path");
}

TEST(FileTest, StampsRegularFilesOnly) {
  const TempDir dir;
  WriteFile(dir / "file", "12345");
  fs::create_symlink("file", dir / "link");
  const auto stamp = StampOf(dir / "file");
  ASSERT_TRUE(stamp);
  EXPECT_EQ(stamp->size, 5U);
  EXPECT_TRUE(stamp->SameContent(StampOf(OpenFile(dir / "file").get())));
  EXPECT_EQ(StampOf(dir / "link"), std::nullopt);
  EXPECT_EQ(StampOf(dir.path()), std::nullopt);
  EXPECT_EQ(StampOf(dir / "absent"), std::nullopt);
}

TEST(FileTest, ANewStampRevealsAChangeOfContent) {
  const TempDir dir;
  WriteFile(dir / "file", "12345");
  WriteFile(dir / "other", "12345");
  const FileStamp before = *StampOf(dir / "file");
  EXPECT_FALSE(before.SameContent(*StampOf(dir / "other")));
  fs::last_write_time(dir / "file", fs::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_FALSE(before.SameContent(*StampOf(dir / "file")));
}

TEST(FileTest, RemovesAFileOnce) {
  const TempDir dir;
  WriteFile(dir / "file", "");
  EXPECT_TRUE(RemoveFile(dir / "file"));
  EXPECT_FALSE(RemoveFile(dir / "file"));
  EXPECT_MSB_ERROR(RemoveFile(dir.path()), ErrorKind::kIO, "cannot remove ", dir.path().filename(),
                   "give the path of a file");
}

TEST(FileTest, MakesPathsAbsoluteAndPlain) {
  const std::string here = fs::current_path().native();
  EXPECT_EQ(AbsolutePath("a"), here + "/a");
  EXPECT_EQ(AbsolutePath("."), here);
  EXPECT_EQ(AbsolutePath("./a/../b"), here + "/b");
  EXPECT_EQ(AbsolutePath("/a/./b/../c"), "/a/c");
  EXPECT_EQ(AbsolutePath("/a//b"), "/a/b");
  EXPECT_EQ(AbsolutePath("/a/b/"), "/a/b");
  EXPECT_EQ(AbsolutePath("/a/b/."), "/a/b");
  EXPECT_EQ(AbsolutePath("/a/b/.."), "/a");
  EXPECT_EQ(AbsolutePath("/../a"), "/a");
  EXPECT_EQ(AbsolutePath("/"), "/");
  EXPECT_EQ(AbsolutePath("/a/.."), "/");
  EXPECT_MSB_ERROR(AbsolutePath(""), ErrorKind::kInvalidArgument, "an empty path",
                   "give the path of a file or directory");
}

TEST(FileTest, SaysThatTheCurrentDirectoryWasRemoved) {
  const fs::path here = fs::current_path();
  {
    const TempDir dir;
    fs::current_path(dir.path());
  }
  EXPECT_MSB_ERROR(AbsolutePath("out.tar"), ErrorKind::kIO, "cannot resolve out.tar",
                   "the current directory was removed", "give an absolute path");
  EXPECT_EQ(AbsolutePath("/a"), "/a");
  fs::current_path(here);
}

TEST(FileTest, ExpandsALeadingTildeOnly) {
  const ScopedHome home("/home/of/user/");
  const std::string here = fs::current_path().native();
  EXPECT_EQ(AbsolutePath("~"), "/home/of/user");
  EXPECT_EQ(AbsolutePath("~/"), "/home/of/user");
  EXPECT_EQ(AbsolutePath("~/a/../b/"), "/home/of/user/b");
  EXPECT_EQ(AbsolutePath("~user/a"), here + "/~user/a");
  EXPECT_EQ(AbsolutePath("/a/~/b"), "/a/~/b");
}

TEST(FileTest, RefusesATildeWithoutAHome) {
  for (const char* home : {"", static_cast<const char*>(nullptr)}) {
    const ScopedHome scoped(home);
    EXPECT_MSB_ERROR(AbsolutePath("~/a"), ErrorKind::kInvalidConfig, "~/a", "HOME is not set",
                     "use an absolute path");
    EXPECT_EQ(AbsolutePath("/a"), "/a");
  }
}

TEST(FileTest, MovesAFileOverNoOther) {
  const TempDir dir;
  WriteFile(dir / "a" / "file", "new");
  WriteFile(dir / "b" / "taken", "old");
  const UniqueFd from = OpenDirectory(dir / "a");
  const UniqueFd to = OpenDirectory(dir / "b");
  EXPECT_EQ(MoveFileAt(from.get(), "file", to.get(), "taken"), MoveResult::kTargetExists);
  EXPECT_EQ(ReadFile(dir / "b" / "taken"), "old");
  EXPECT_EQ(ReadFile(dir / "a" / "file"), "new");
  EXPECT_EQ(MoveFileAt(from.get(), "file", to.get(), "moved"), MoveResult::kMoved);
  EXPECT_EQ(ReadFile(dir / "b" / "moved"), "new");
  EXPECT_FALSE(fs::exists(dir / "a" / "file"));
  EXPECT_MSB_ERROR(MoveFileAt(from.get(), "file", to.get(), "again"), ErrorKind::kIO,
                   "cannot rename ", "/a/file to ",
                   "/b/again: ", "/a/file is absent: stop the program that removed it");
}

TEST(FileTest, SetsModes) {
  const TempDir dir;
  WriteFile(dir / "file", "");
  const UniqueFd fd = OpenFile(dir / "file");
  SetMode(fd.get(), 0440);
  EXPECT_EQ(StampOf(fd.get()).mode, 0440U);
}

TEST(FileTest, LinksAFileUnderANameThatIsFree) {
  const TempDir dir;
  WriteFile(dir / "file", "content");
  WriteFile(dir / "taken", "old");
  const UniqueFd parent = OpenDirectory(dir.path());
  EXPECT_TRUE(TryLinkFile(dir / "file", parent.get(), "name"));
  EXPECT_EQ(StampOf(dir / "name")->inode, StampOf(dir / "file")->inode);
  EXPECT_EQ(ReadFile(dir / "name"), "content");
  const auto before = test::ListTree(dir.path());
  EXPECT_MSB_ERROR(TryLinkFile(dir / "file", parent.get(), "taken"), ErrorKind::kIO, "cannot link ",
                   "/file to ", "/taken: ", "move it away");
  EXPECT_MSB_ERROR(TryLinkFile(dir / "absent", parent.get(), "free"), ErrorKind::kIO,
                   "cannot link ", "/absent to ", "/free: ", "/absent is absent: ");
  EXPECT_EQ(test::ListTree(dir.path()), before);
}

TEST(FileTest, MakesADirectoryOnlyWhereNothingIs) {
  const TempDir dir;
  WriteFile(dir / "file", "old");
  fs::create_directory(dir / "dir");
  fs::create_symlink("elsewhere", dir / "link");
  const auto before = test::ListTree(dir.path());
  const UniqueFd fd = OpenDirectory(dir.path());
  for (const char* name : {"file", "dir", "link", "absent/new"}) {
    EXPECT_MSB_ERROR(MakeDirectoryAt(fd.get(), name), ErrorKind::kIO, "cannot create directory ",
                     name);
  }
  EXPECT_EQ(test::ListTree(dir.path()), before);
  MakeDirectoryAt(fd.get(), "new");
  EXPECT_TRUE(fs::is_directory(dir / "new"));
}

TEST(FileTest, FlushesDirectoriesButNotTheTargetsOfLinks) {
  const TempDir dir;
  WriteFile(dir / "a/b/file", "content");
  fs::create_directory_symlink(".", dir / "a/loop");
  const auto before = test::ListTree(dir.path());
  EXPECT_NO_THROW(SyncDirectories(OpenDirectory(dir.path()).get()));
  EXPECT_EQ(test::ListTree(dir.path()), before);
  EXPECT_MSB_ERROR(SyncDirectories(OpenFile(dir / "a/b/file").get()), ErrorKind::kIO,
                   "/a/b/file: ", "not a directory");
}

TEST(FileTest, ReturnsTheFreeSpace) {
  const TempDir dir;
  const std::uint64_t free = FreeSpace(OpenDirectory(dir.path()).get()).value_or(0);
  // Others may write to the disk meanwhile, but not that much.
  constexpr std::uint64_t kLeeway = std::uint64_t{4} << 30;
  const std::uint64_t expected = fs::space(dir.path()).available;
  EXPECT_LE(free, expected + kLeeway);
  EXPECT_GE(free + kLeeway, expected);
  WriteFile(dir / "file", "content");
  EXPECT_GT(FreeSpace(OpenFile(dir / "file").get()), 0U);
  // /proc reports 0 blocks in total, like a tmpfs without a limit.
  EXPECT_EQ(FreeSpace(OpenDirectory("/proc").get()), std::nullopt);
  EXPECT_MSB_ERROR(FreeSpace(-1), ErrorKind::kIO, "the free space of an open file");
}

TEST(FileTest, MakesSuffixesThatDiffer) {
  const std::string suffix = RandomSuffix();
  EXPECT_EQ(suffix.size(), 16U);
  EXPECT_EQ(suffix.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_NE(suffix, RandomSuffix());
}

// The other user could go on writing to the file.
TEST(ModeTest, TheFileOfAnotherUserIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  const TempDir dir;
  WriteFile(dir / "file", "");
  const UniqueFd file = OpenForUpdateAt(OpenDirectory(dir.path()).get(), "file");
  const pid_t pid = fork();
  if (pid == 0) {
    if (setresuid(65534, 65534, 65534) != 0) _exit(2);
    try {
      TrySetMode(file.get(), 0444);
    } catch (const Error& e) {
      _exit(e.kind() == ErrorKind::kIO && e.os_error() == EPERM ? 0 : 3);
    }
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(ReadUnchangedTest, ReportsAChangedFileRatherThanTheReadThatFailed) {
  const TempDir dir;
  WriteFile(dir / "file", "content");
  const UniqueFd fd = OpenFile(dir / "file");
  const FileStamp before = StampOf(fd.get());
  const auto check = [&] {
    CheckUnchanged(before, StampOf(fd.get()), ErrorKind::kSnapshotIntegrity, "file", "read");
  };
  const auto read = [&] {
    std::string bytes(7, '\0');
    ReadExactly(fd.get(), bytes.data(), bytes.size(), 0);
  };
  const auto cancel = [] { throw Error(ErrorKind::kCancelled, "cancelled"); };
  EXPECT_NO_THROW(ReadUnchanged(check, read));
  fs::resize_file(dir / "file", 3);
  EXPECT_MSB_ERROR(read(), ErrorKind::kIO, "ends at byte 3");
  EXPECT_MSB_ERROR(ReadUnchanged(check, read), ErrorKind::kSnapshotIntegrity, "file", "changed");
  EXPECT_MSB_ERROR(ReadUnchanged(check, [] {}), ErrorKind::kSnapshotIntegrity, "file", "changed");
  EXPECT_MSB_ERROR(ReadUnchanged(check, cancel), ErrorKind::kCancelled, "cancelled");
}

}  // namespace
}  // namespace msb::base
