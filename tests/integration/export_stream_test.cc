// SPDX-License-Identifier: Apache-2.0
//
// Export to a pipe or another stream, and Import from one: what `export - | ssh HOST import -`
// does.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <future>
#include <string>
#include <utility>

#include "src/base/descriptor.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using base::UniqueFd;

std::string DescriptorPath(const UniqueFd& fd) { return "/dev/fd/" + std::to_string(fd.get()); }

// Reads everything from fd, which may be a pipe or a socket.
std::string ReadToEnd(UniqueFd fd) {
  std::string bytes;
  std::array<char, 65536> buffer;
  while (true) {
    const ssize_t n = read(fd.get(), buffer.data(), buffer.size());
    if (n <= 0) return bytes;
    bytes.append(buffer.data(), static_cast<std::size_t>(n));
  }
}

std::pair<UniqueFd, UniqueFd> SocketPair() {
  std::array<int, 2> ends{};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

class ExportStreamTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kMiB = 1 << 20;

  ExportStreamTest() {
    MakeSparseFile(dir_ / "disk", 64 * kMiB,
                   {{0, Noise(2 * kMiB, 1)}, {32 * kMiB, Noise(kMiB, 2)}});
    MakeStoppedSandbox(client_, "baseline", dir_ / "disk");
    Snapshot::Create(Soon(), "baseline", {.name = "s", .record_integrity = true}, client_);
    Snapshot::Export(Soon(), "s", dir_ / "file", {}, client_);
    archive_ = ReadFile(dir_ / "file");
  }

  // Exports to the write end in this thread while another thread reads the read end.
  std::string ExportThrough(std::pair<UniqueFd, UniqueFd> ends) {
    auto reader = std::async(std::launch::async, ReadToEnd, std::move(ends.first));
    Snapshot::Export(Soon(), "s", DescriptorPath(ends.second), {}, client_);
    ends.second.Reset(-1);
    return reader.get();
  }

  const TempDir dir_;
  Client client_ = LocalClient(dir_ / "home");
  std::string archive_;
};

TEST_F(ExportStreamTest, APipeReceivesTheSameBytesAsAFile) {
  EXPECT_EQ(ExportThrough(base::OpenPipe()), archive_);
}

TEST_F(ExportStreamTest, ASocketReceivesTheSameBytesAsAFile) {
  EXPECT_EQ(ExportThrough(SocketPair()), archive_);
}

TEST_F(ExportStreamTest, APlainTarOfASparseDiskCanBeStreamed) {
  Snapshot::Export(Soon(), "s", dir_ / "plain", {.plain_tar = true}, client_);
  auto ends = base::OpenPipe();
  auto reader = std::async(std::launch::async, ReadToEnd, std::move(ends.first));
  Snapshot::Export(Soon(), "s", DescriptorPath(ends.second), {.plain_tar = true}, client_);
  ends.second.Reset(-1);
  EXPECT_TRUE(reader.get() == ReadFile(dir_ / "plain"));
}

TEST_F(ExportStreamTest, ANamedPipeIsWrittenAndStaysAPipe) {
  const fs::path pipe = dir_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  auto reader = std::async(std::launch::async, [&] {
    return ReadToEnd(UniqueFd(open(pipe.c_str(), O_RDONLY | O_CLOEXEC)));
  });
  Snapshot::Export(Soon(), "s", pipe, {}, client_);
  EXPECT_EQ(reader.get(), archive_);
  EXPECT_TRUE(fs::is_fifo(pipe));
  EXPECT_EQ(ListTree(dir_.path()).count(".msb-stage"), 0U);
}

TEST_F(ExportStreamTest, ARedirectedFileContinuesAtItsPosition) {
  UniqueFd file(open((dir_ / "redirected").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(write(file.get(), "header", 6), 6);
  Snapshot::Export(Soon(), "s", DescriptorPath(file), {}, client_);
  EXPECT_EQ(ReadFile(dir_ / "redirected"), "header" + archive_);
}

TEST_F(ExportStreamTest, AReaderThatEndsEarlyIsAnErrorThatNamesThePipe) {
  auto [reader, writer] = base::OpenPipe();
  reader.Reset(-1);
  EXPECT_MSB_ERROR(Snapshot::Export(Soon(), "s", DescriptorPath(writer), {}, client_),
                   ErrorKind::kIO, DescriptorPath(writer), "its reader closed it", "try again");
}

TEST_F(ExportStreamTest, CancelingEndsAnExportToAFullPipe) {
  const auto [reader, writer] = base::OpenPipe();
  const auto [ctx, cancel] = Soon().WithCancel();
  // The archive is larger than the pipe, so the export waits after it has filled the pipe.
  const auto waiting = std::async(std::launch::async, [fd = reader.get(), cancel = cancel] {
    char first = 0;
    EXPECT_EQ(read(fd, &first, 1), 1);
    cancel();
  });
  EXPECT_MSB_ERROR(Snapshot::Export(ctx, "s", DescriptorPath(writer), {.plain_tar = true}, client_),
                   ErrorKind::kCancelled, "cancel");
}

TEST_F(ExportStreamTest, CancelingEndsAnExportToANamedPipeWithoutAReader) {
  ASSERT_EQ(mkfifo((dir_ / "pipe").c_str(), 0600), 0);
  EXPECT_MSB_ERROR(Snapshot::Export(Soon().WithTimeout(std::chrono::milliseconds(30)), "s",
                                    dir_ / "pipe", {}, client_),
                   ErrorKind::kCancelled, "deadline");
}

TEST_F(ExportStreamTest, ADescriptorThatIsNotOpenIsRefused) {
  EXPECT_MSB_ERROR(Snapshot::Export(Soon(), "s", "/dev/fd/1000000", {}, client_), ErrorKind::kIO,
                   "/dev/fd/1000000", "not open");
  EXPECT_MSB_ERROR(Snapshot::Import(Soon(), "/dev/fd/1000000", "", client_), ErrorKind::kIO,
                   "/dev/fd/1000000", "not open");
}

TEST_F(ExportStreamTest, TwoHomesAreConnectedByASocket) {
  auto [reader, writer] = SocketPair();
  const Client other = LocalClient(dir_ / "other");
  auto import = std::async(std::launch::async, [&, path = DescriptorPath(reader)] {
    return Snapshot::Import(Soon(), path, "", {.name = "copy"}, other).Digest();
  });
  Snapshot::Export(Soon(), "s", DescriptorPath(writer), {}, client_);
  writer.Reset(-1);
  EXPECT_EQ(import.get(), Snapshot::Get(Soon(), "s", client_).Digest());
  EXPECT_EQ(Snapshot::Open(Soon(), "copy", other).Verify(Soon()).upper.kind, "verified");
}

TEST_F(ExportStreamTest, ImportContinuesWhereTheDescriptorStands) {
  WriteFile(dir_ / "prefixed", "header" + archive_);
  const UniqueFd file(open((dir_ / "prefixed").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(lseek(file.get(), 6, SEEK_SET), 6);
  const Client other = LocalClient(dir_ / "other");
  EXPECT_EQ(Snapshot::Import(Soon(), DescriptorPath(file), "", other).Digest(),
            Snapshot::Get(Soon(), "s", client_).Digest());
}

}  // namespace
}  // namespace msb::test
