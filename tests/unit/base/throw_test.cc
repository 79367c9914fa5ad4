// SPDX-License-Identifier: Apache-2.0

#include "src/base/throw.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <regex>
#include <string>
#include <vector>

#include "src/base/file.h"
#include "src/base/space.h"
#include "tests/support/build.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string MessageOf(const std::function<void()>& function, ErrorKind kind, int os_error) {
  try {
    function();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    EXPECT_EQ(e.os_error(), os_error) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(ThrowTest, EveryErrorNamesThePathAndTheNextStep) {
  for (int error = 1; error < 134; ++error) {
    const std::string message =
        MessageOf([&] { ThrowErrno("open", "/home/x/file", error); }, ErrorKind::kIO, error);
    EXPECT_THAT(message, HasSubstr("cannot open /home/x/file: "));
    const std::size_t step = message.find("; ");
    ASSERT_NE(step, std::string::npos) << message;
    EXPECT_GT(message.size(), step + 10) << message;
  }
}

TEST(ThrowTest, PermissionNamesTheUserTheOwnerAndTheVariableThatMovesTheHome) {
  const std::string user = std::to_string(geteuid());
  for (const int error : {EACCES, EPERM}) {
    EXPECT_THAT(
        MessageOf([&] { ThrowErrno("create", "/etc/absent/file", error); }, ErrorKind::kIO, error),
        AllOf(HasSubstr("runs as user " + user), HasSubstr("/etc belongs to user 0"),
              HasSubstr("MSB_HOME or Config::home for the home")));
  }
  EXPECT_THAT(MessageOf([] { ThrowErrno("write", "/etc", EPERM); }, ErrorKind::kIO, EPERM),
              AllOf(HasSubstr("lsattr"), HasSubstr("chattr -i -a")));
}

TEST(ThrowTest, FullDiskNamesFreeAndNeededBytes) {
  const test::TempDir dir;
  const UniqueFd fd = OpenDirectory(dir.path());
  const std::string message = MessageOf(
      [&] { ThrowNoSpace("write", fd.get(), {.bytes = 12345}, ENOSPC); }, ErrorKind::kIO, ENOSPC);
  EXPECT_THAT(message, AllOf(HasSubstr(dir.path().native()),
                             HasSubstr("and at least 12345 are needed"), HasSubstr("MSB_HOME")));
  EXPECT_TRUE(std::regex_search(message, std::regex("[0-9]+ bytes are free there"))) << message;
  EXPECT_THAT(MessageOf([&] { ThrowErrno("write", fd.get(), EDQUOT); }, ErrorKind::kIO, EDQUOT),
              HasSubstr("quota of user " + std::to_string(geteuid())));
}

TEST(ThrowTest, FullDiskNamesTheBytesThatACompleteFileNeeds) {
  const test::TempDir dir;
  test::WriteFile(dir / "copy", "a part of it");
  const UniqueFd fd = OpenAt(AT_FDCWD, (dir / "copy").c_str(), O_RDWR);
  const auto need = [] { return SpaceNeed{SpaceNeed::Bound::kAtMost, 987654}; };
  const auto copy = [&] {
    ReportingSpace(fd.get(), need, [&] { ThrowErrno("write", fd.get(), ENOSPC); });
  };
  EXPECT_THAT(MessageOf(copy, ErrorKind::kIO, ENOSPC), HasSubstr("and at most 987654 are needed"));
  EXPECT_EQ(std::filesystem::file_size(dir / "copy"), 0U);
  const auto other = [&] {
    ReportingSpace(fd.get(), need, [&] { ThrowErrno("write", fd.get(), EIO); });
  };
  EXPECT_THAT(MessageOf(other, ErrorKind::kIO, EIO), HasSubstr("dmesg"));
}

TEST(ThrowTest, AbsentDirectoryIsNamed) {
  EXPECT_THAT(
      MessageOf([] { ThrowErrno("open", "/etc/absent/a/file", ENOENT); }, ErrorKind::kIO, ENOENT),
      HasSubstr("the directory /etc/absent/a is absent: create it"));
  EXPECT_THAT(MessageOf([] { ThrowErrno("open", "/etc/absent", ENOENT); }, ErrorKind::kIO, ENOENT),
              HasSubstr("it is absent from /etc: create it"));
}

TEST(ThrowTest, ALinkThatLeadsNowhereIsNotCalledAbsent) {
  const test::TempDir dir;
  const std::filesystem::path link = dir / "home";
  std::filesystem::create_symlink("/mnt/absent", link);
  for (const std::filesystem::path& path : {link, link / "snapshots", link / "snapshots/s"}) {
    EXPECT_THAT(
        MessageOf([&] { ThrowErrno("open", path.native(), ENOENT); }, ErrorKind::kIO, ENOENT),
        AllOf(HasSubstr(link.native() + " is a symbolic link to /mnt/absent, which is absent"),
              HasSubstr("mount or create that, or correct the link")));
  }
}

TEST(ThrowTest, NamesTheComponentThatIsNotADirectory) {
  const test::TempDir dir;
  test::WriteFile(dir / "file", "x");
  const std::string file = dir / "file";
  for (const std::string& path : {file, file + "/a", file + "/a/b", file + "/"}) {
    EXPECT_THAT(MessageOf([&] { ThrowErrno("open", path, ENOTDIR); }, ErrorKind::kIO, ENOTDIR),
                HasSubstr("; " + file + " is not a directory: correct the path"))
        << path;
  }
  EXPECT_THAT(MessageOf([] { ThrowErrno("open", "/absent/x", ENOTDIR); }, ErrorKind::kIO, ENOTDIR),
              HasSubstr("a component of the path is not a directory: correct the path"));
}

TEST(ThrowTest, ABusyPathMayBeAMountPoint) {
  EXPECT_THAT(MessageOf([] { ThrowErrno("rename", "/mnt/s", EBUSY); }, ErrorKind::kIO, EBUSY),
              AllOf(HasSubstr("another program is using it, or it is a mount point"),
                    HasSubstr("unmount it (umount /mnt/s)")));
  EXPECT_EQ(MessageOf([] { ThrowErrno("write", "/bin/x", ETXTBSY); }, ErrorKind::kIO, ETXTBSY)
                .find("mount point"),
            std::string::npos);
}

TEST(ThrowTest, LostServersOfFileSystemsAreNamed) {
  EXPECT_THAT(MessageOf([] { ThrowErrno("open", "/mnt/s", ESTALE); }, ErrorKind::kIO, ESTALE),
              HasSubstr("if it fails again, unmount its file system and mount it again"));
  EXPECT_THAT(MessageOf([] { ThrowErrno("open", "/mnt/s", ETIMEDOUT); }, ErrorKind::kIO, ETIMEDOUT),
              HasSubstr("did not answer: check that server and the network"));
  EXPECT_THAT(MessageOf([] { ThrowErrno("open", "/mnt/s", ENOTCONN); }, ErrorKind::kIO, ENOTCONN),
              AllOf(HasSubstr("the program that served its file system, such as a FUSE server, "
                              "has ended"),
                    HasSubstr("(umount -l /mnt/s) and mount it again")));
}

TEST(ThrowTest, NamesTheMountPointOfADeadFuseServer) {
  const test::TempDir dir;
  const std::string mount_point = dir / "mnt";
  std::filesystem::create_directory(mount_point);
  {
    const UniqueFd fuse = OpenAt(AT_FDCWD, "/dev/fuse", O_RDWR);
    const std::string options =
        "rootmode=40000,user_id=0,group_id=0,fd=" + std::to_string(fuse.get());
    if (!fuse || mount("fuse", mount_point.c_str(), "fuse", 0, options.c_str()) != 0) {
      GTEST_SKIP() << "FUSE cannot be mounted";
    }
  }
  for (const std::string& path : {mount_point, mount_point + "/home/db"}) {
    EXPECT_THAT(MessageOf([&] { OpenDirectory(path); }, ErrorKind::kIO, ENOTCONN),
                HasSubstr("unmount it (umount -l " + mount_point + ") and mount it again"));
  }
  EXPECT_EQ(umount2(mount_point.c_str(), MNT_DETACH), 0);
}

TEST(ThrowTest, FullDeviceHasNoFreeSpace) {
  const std::string message =
      MessageOf([] { ThrowErrno("write", "/dev/full", ENOSPC); }, ErrorKind::kIO, ENOSPC);
  EXPECT_THAT(message, HasSubstr("choose another device or a file"));
  EXPECT_EQ(message.find("bytes are free"), std::string::npos) << message;
}

TEST(ThrowTest, OpenFilesAreNamedByTheirPaths) {
  const test::TempDir dir;
  test::WriteFile(dir / "file", "x");
  const UniqueFd parent = OpenDirectory(dir.path());
  const UniqueFd fd = OpenAt(AT_FDCWD, (dir / "file").c_str(), O_RDONLY);
  const std::string path = std::filesystem::canonical(dir / "file");
  EXPECT_EQ(PathOf(fd.get()), path);
  EXPECT_EQ(PathOf(parent.get(), "file"), path);
  EXPECT_THAT(MessageOf([&] { WriteExactly(fd.get(), "xy", 2, 0); }, ErrorKind::kIO, EBADF),
              HasSubstr("cannot write " + path + ": "));
  EXPECT_THAT(MessageOf([&] { CreateFileAt(parent.get(), "file", 0600); }, ErrorKind::kIO, EEXIST),
              HasSubstr("cannot create " + path + ": "));
}

TEST(ThrowTest, ProgramThatCannotBeExecutedIsAWrongConfiguration) {
  for (const int error : {ENOENT, EACCES, ENOEXEC, ENOTDIR}) {
    EXPECT_THAT(
        MessageOf([&] { ThrowCannotExecute("/no/qemu", error); }, ErrorKind::kInvalidConfig, error),
        HasSubstr("cannot execute /no/qemu: "));
  }
  MessageOf([] { ThrowCannotExecute("/no/qemu", ENOMEM); }, ErrorKind::kIO, ENOMEM);
}

// Searches the sources. A message that says "an open file" does not name the file. kInternal is for
// bugs of the library, and src/vmm must not use it.
TEST(ThrowTest, SourcesNameThePathInErrors) {
  const std::filesystem::path sources = test::FixturesDir() / "../../src";
  const std::regex nameless("ThrowErrno\\(\"[^\"]*\", \"an? (open )?(file|directory|extent)");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(sources)) {
    const std::string extension = entry.path().extension();
    if (extension != ".cc" && extension != ".h") continue;
    const std::string text = test::ReadFile(entry.path());
    EXPECT_FALSE(std::regex_search(text, nameless)) << entry.path();
    if (entry.path().parent_path().filename() == "vmm") {
      EXPECT_EQ(text.find("ErrorKind::kInternal"), std::string::npos) << entry.path();
    }
  }
}

}  // namespace
}  // namespace msb::base
