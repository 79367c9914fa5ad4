// SPDX-License-Identifier: Apache-2.0
//
// export, import and flatten.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <filesystem>

#include "src/base/file.h"
#include "tests/program/program_home.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class TransferTest : public ProgramTest {
 protected:
  TransferTest() { MakeSnapshot("clean", {"--integrity"}); }

  const std::string other_ = dir_ / "other";
  const std::string archive_ = dir_ / "clean.tar.zst";
};

TEST_F(TransferTest, ExportReportsTheArchiveAndItsSize) {
  EXPECT_THAT(Output({"export", "clean", archive_}),
              AllOf(HasSubstr("exported clean to " + archive_), HasSubstr("B)\n")));
  const auto document = Document("export", {"export", "clean", "relative.tar"});
  EXPECT_EQ(document["archive"], (dir_ / "relative.tar").native());
  EXPECT_EQ(document["archive_bytes"], fs::file_size(dir_ / "relative.tar"));
}

TEST_F(TransferTest, ImportReportsTheSnapshot) {
  Output({"export", "clean", archive_});
  EXPECT_THAT(Output({"import", archive_, "--home", other_, "--name", "copy"}),
              AllOf(HasSubstr("imported " + other_ + "/snapshots/copy"), HasSubstr("sha256:")));
  const auto document =
      Document("import", {"import", archive_, "--home", other_, "--dest", dir_ / "there"});
  EXPECT_THAT(document["artifact_path"].get<std::string>(), HasSubstr((dir_ / "there").native()));
  EXPECT_EQ(document["digest"], Document("inspect", {"inspect", "clean"})["digest"]);
}

TEST_F(TransferTest, ExportOptionsReachTheLibrary) {
  Output({"export", "clean", archive_, "--plain-tar", "--with-parents", "--sparse", "--level", "19",
          "--threads", "1"});
  EXPECT_THAT(ReadFile(archive_), HasSubstr("ustar"));
  EXPECT_EQ(Run({"export", "clean", archive_, "--level", "99"}).exit_code, 21);
}

TEST_F(TransferTest, FlattenWritesTheDisk) {
  EXPECT_THAT(Output({"flatten", "clean", "disk.raw"}), HasSubstr("wrote the disk of clean"));
  EXPECT_EQ(ReadFile(dir_ / "disk.raw"), ReadFile(dir_ / "base.img"));
  const auto document =
      Document("flatten", {"flatten", "clean", "disk.qcow2", "--format", "qcow2"});
  EXPECT_EQ(document["path"], (dir_ / "disk.qcow2").native());
  EXPECT_EQ(document["format"], "qcow2");
  EXPECT_EQ(ReadFile(dir_ / "disk.qcow2").substr(0, 3), "QFI");
}

TEST_F(TransferTest, StreamsASnapshotThroughAPipe) {
  const ProcessResult result =
      Bash("set -o pipefail; $P export clean - | $P import - --home '" + other_ + "' --json");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(nlohmann::json::parse(result.out)["digest"],
            Document("inspect", {"inspect", "clean"})["digest"]);
}

// ssh(1) gives the programs that it runs sockets.
TEST_F(TransferTest, StreamsASnapshotThroughASocket) {
  std::array<int, 2> fds;
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
  base::UniqueFd out(fds[0]);
  base::UniqueFd in(fds[1]);
  const base::UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  const pid_t sender = StartProcess(Command({"export", "clean", "-"}), options_,
                                    {null.get(), out.get(), null.get()});
  const pid_t receiver = StartProcess(Command({"import", "-", "--home", other_, "--name", "copy"}),
                                      options_, {in.get(), null.get(), null.get()});
  out = base::UniqueFd();
  in = base::UniqueFd();
  EXPECT_EQ(WaitForProcess(sender), 0);
  EXPECT_EQ(WaitForProcess(receiver), 0);
  EXPECT_TRUE(fs::exists(other_ + "/snapshots/copy/upper.ext4"));
}

TEST_F(TransferTest, ASenderThatFailsLeavesNothingAtTheReceiver) {
  const ProcessResult result = Bash("$P export absent - | $P import - --home '" + other_ + "'");
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("absent"));
  EXPECT_EQ(Output({"list", "-q", "--home", other_}), "");
}

TEST_F(TransferTest, JsonAndAnArchiveDoNotShareStandardOutput) {
  const ProcessResult result = Run({"export", "clean", "-", "--json"});
  EXPECT_EQ(result.exit_code, kUsageCode);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr("--json"));
}

TEST_F(TransferTest, NothingElseIsWrittenToAStreamWithAnArchive) {
  for (const std::string output : {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}) {
    SCOPED_TRACE(output);
    const ProcessResult result = Bash("$P export clean " + output + " > archive");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    Output({"import", "archive", "--name", "copy", "--home", other_});
    Output({"rm", "copy", "--home", other_});
    EXPECT_EQ(Run({"export", "clean", output, "--json"}).exit_code, kUsageCode);
  }
}

TEST_F(TransferTest, ADiskIsNotWrittenToAStream) {
  for (const std::string output : {"-", "/dev/stdout"}) {
    const ProcessResult result = Run({"flatten", "clean", output});
    EXPECT_EQ(result.exit_code, kUsageCode);
    EXPECT_THAT(result.err, HasSubstr("use export for a pipe"));
    EXPECT_EQ(result.out, "");
  }
  EXPECT_FALSE(fs::exists(dir_ / "-"));
}

}  // namespace
}  // namespace msb::test
