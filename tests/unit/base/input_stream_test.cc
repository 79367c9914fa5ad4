// SPDX-License-Identifier: Apache-2.0

#include "src/base/input_stream.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>

#include "tests/support/fed_pipe.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;
using test::FedPipe;
using test::Noise;
using test::TempDir;
using test::WriteFile;

void GoOn() {}

// Reads up to size bytes.
std::string Read(InputStream& stream, std::size_t size, const std::function<void()>& check = GoOn) {
  std::string bytes(size, '?');
  bytes.resize(stream.Read(std::as_writable_bytes(std::span(bytes)), check));
  return bytes;
}

TEST(InputStreamTest, ReadsAFileToItsEnd) {
  const TempDir dir;
  const std::string content = Noise(10'000, 1);
  WriteFile(dir / "file", content);
  InputStream stream(dir / "file");
  EXPECT_EQ(stream.size(), 10'000U);
  EXPECT_EQ(Read(stream, 4000), content.substr(0, 4000));
  EXPECT_EQ(Read(stream, 0), "");
  EXPECT_EQ(Read(stream, 4000), content.substr(4000, 4000));
  EXPECT_EQ(Read(stream, 4000), content.substr(8000));
  EXPECT_EQ(Read(stream, 4000), "");
  EXPECT_EQ(Read(stream, 4000), "");
}

TEST(InputStreamTest, GivesTheHolesOfAFileAsZeros) {
  const TempDir dir;
  const std::string data = Noise(4096, 1);
  test::MakeSparseFile(dir / "file", 1 << 20, {{64 << 10, data}, {512 << 10, data}});
  const std::string content = test::ReadFile(dir / "file");
  InputStream stream(dir / "file");
  for (std::size_t done = 0; done < content.size(); done += 10'000) {
    EXPECT_TRUE(Read(stream, 10'000) == content.substr(done, 10'000)) << done;
  }
  EXPECT_EQ(Read(stream, 1), "");
}

TEST(InputStreamTest, FillsTheBufferFromAPipeWrittenInPieces) {
  const std::string content = Noise(300'000, 1);
  const FedPipe pipe([&](const FedPipe::Write& write) {
    for (std::size_t done = 0; done < content.size(); done += 777) {
      write(std::string_view(content).substr(done, 777));
    }
  });
  InputStream stream(pipe.path());
  EXPECT_EQ(stream.size(), 0U);
  EXPECT_TRUE(Read(stream, 200'000) == content.substr(0, 200'000));
  EXPECT_TRUE(Read(stream, 200'000) == content.substr(200'000));
  EXPECT_EQ(Read(stream, 1), "");
}

TEST(InputStreamTest, ReadsDevices) {
  InputStream null("/dev/null");
  EXPECT_EQ(null.size(), 0U);
  EXPECT_EQ(Read(null, 10), "");
  InputStream zero("/dev/zero");
  EXPECT_EQ(zero.size(), 0U);
  EXPECT_EQ(Read(zero, 10), std::string(10, '\0'));
}

TEST(InputStreamTest, OpensNothingThatCannotBeRead) {
  const TempDir dir;
  EXPECT_MSB_ERROR(InputStream(dir / "absent"), ErrorKind::kIO, "cannot open ",
                   "/absent: it is absent; correct the path");
  EXPECT_MSB_ERROR(InputStream(dir.path()), ErrorKind::kIO, "cannot read ", dir.path().filename(),
                   "give the path of a file");
  EXPECT_MSB_ERROR(InputStream(""), ErrorKind::kIO, "cannot open an empty path",
                   "correct the path");
  EXPECT_TRUE(test::ListTree(dir.path()).empty());
}

TEST(InputStreamTest, AsksBeforeEachReadWhetherToGoOn) {
  const TempDir dir;
  WriteFile(dir / "file", "content");
  InputStream stream(dir / "file");
  const auto stop = [] { throw std::domain_error("stop"); };
  EXPECT_THROW(Read(stream, 3, stop), std::domain_error);
  EXPECT_EQ(Read(stream, 100), "content");
}

TEST(InputStreamTest, AsksAgainAndAgainWhileAPipeBringsNothing) {
  std::atomic<bool> stopped = false;
  const FedPipe pipe([&](const FedPipe::Write& write) {
    write("some");
    stopped.wait(false);
  });
  InputStream stream(pipe.path());
  int asked = 0;
  const auto check = [&] {
    if (++asked == 5) throw std::domain_error("enough");
  };
  EXPECT_THROW(Read(stream, 100, check), std::domain_error);
  stopped = true;
  stopped.notify_all();
}

TEST(InputStreamTest, WaitsForTheFirstWriterOfANamedPipe) {
  const TempDir dir;
  const fs::path fifo = dir / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  InputStream stream(fifo);
  std::jthread writer;
  int asked = 0;
  const auto check = [&] {
    // By then it has found no writer twice, without taking that for the end.
    if (++asked == 3) writer = std::jthread([&] { WriteFile(fifo, "content"); });
  };
  EXPECT_EQ(Read(stream, 100, check), "content");
  EXPECT_GE(asked, 3);
  EXPECT_EQ(Read(stream, 100), "");
}

}  // namespace
}  // namespace msb::base
