// SPDX-License-Identifier: Apache-2.0

#include "src/archive/byte_sink.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::archive {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::Noise;
using test::ReadFile;
using test::TempDir;

using Extents = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
using Writing = std::function<void(ByteSink& sink)>;

void WriteInSteps(ByteSink& sink, std::string_view content, std::size_t step) {
  for (; !content.empty(); content.remove_prefix(std::min(step, content.size()))) {
    sink.Write(Bytes(content.substr(0, step)));
  }
}

base::UniqueFd NewFile(const fs::path& path) {
  return base::UniqueFd(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
}

TEST(FileSinkTest, ZerosAreHoles) {
  const TempDir dir;
  const std::string first = Noise(8192, 1);
  const std::string second = Noise(4096, 2);
  {
    const base::UniqueFd fd = NewFile(dir / "file");
    const auto sink = MakeFileSink(fd.get());
    sink->WriteZeros(4096);
    WriteInSteps(*sink, first, 1000);
    sink->WriteZeros(0);
    sink->WriteZeros(std::uint64_t{1} << 40);
    sink->WriteZeros(4096);
    sink->Write(Bytes(second));
    sink->WriteZeros(12'288);
    sink->Finish();
    base::Sync(fd.get());
  }
  const std::uint64_t hole_end = 12'288 + (std::uint64_t{1} << 40) + 4096;
  EXPECT_EQ(fs::file_size(dir / "file"), hole_end + 4096 + 12'288);
  EXPECT_EQ(test::ExtentsOf(dir / "file"), (Extents{{4096, 8192}, {hole_end, 4096}}));
  const base::UniqueFd fd(open((dir / "file").c_str(), O_RDONLY | O_CLOEXEC));
  std::string read(8192, '\0');
  base::ReadExactly(fd.get(), read.data(), 8192, 4096);
  EXPECT_TRUE(read == first);
  read.resize(4096);
  base::ReadExactly(fd.get(), read.data(), 4096, hole_end);
  EXPECT_TRUE(read == second);
}

TEST(FileSinkTest, WritesLargeFilesAsTheyAre) {
  const TempDir dir;
  const std::string content = Noise(11 << 20, 1);
  const base::UniqueFd fd = NewFile(dir / "file");
  const auto sink = MakeFileSink(fd.get());
  WriteInSteps(*sink, content, 700'000);
  sink->Finish();
  EXPECT_TRUE(ReadFile(dir / "file") == content);
}

// Returns the frame that write produces.
std::string Frame(int level, unsigned threads, const Writing& write) {
  const TempDir dir;
  const base::UniqueFd fd = NewFile(dir / "frame");
  const auto sink = MakeZstdSink(MakeFileSink(fd.get()), level, threads);
  write(*sink);
  sink->Finish();
  return ReadFile(dir / "frame");
}

std::string Decompressed(const std::string& frame) {
  const TempDir dir;
  test::WriteFile(dir / "frame", frame);
  const auto result = test::RunCommand("zstd -dcq <'" + (dir / "frame").native() + "'");
  EXPECT_EQ(result.status, 0) << result.output;
  return result.output;
}

std::string Listed(const std::string& frame) {
  const TempDir dir;
  test::WriteFile(dir / "frame.zst", frame);
  return test::RunCommand("zstd -lv '" + (dir / "frame.zst").native() + "'").output;
}

// Returns content of which some can be compressed, and some repeats bytes from far back.
std::string Content(std::size_t size) {
  std::string content = Noise(size, 1);
  for (std::size_t i = 0; i < size; ++i) {
    if (i / 70'000 % 3 == 0) content[i] = static_cast<char>(content[i] & 3);
  }
  if (size > 2'000'000) content.replace(size - 500'000, 500'000, content, 0, 500'000);
  return content;
}

TEST(ZstdSinkTest, MakesOneFrameWithAChecksum) {
  const std::string content = Content(9'000'000);
  const std::string frame =
      Frame(3, 2, [&](ByteSink& sink) { WriteInSteps(sink, content, 1'000'000); });
  EXPECT_LT(frame.size(), content.size());
  EXPECT_TRUE(Decompressed(frame) == content);
  const std::string listed = Listed(frame);
  EXPECT_NE(listed.find("Frames: 1\n"), std::string::npos) << listed;
  EXPECT_NE(listed.find("Check: XXH64"), std::string::npos) << listed;
}

TEST(ZstdSinkTest, NothingIsAFrameToo) {
  const std::string frame = Frame(3, 1, [](ByteSink&) {});
  EXPECT_NE(Listed(frame).find("Frames: 1\n"), std::string::npos);
  EXPECT_EQ(Decompressed(frame), "");
  EXPECT_EQ(Frame(3, 1, [](ByteSink& sink) { sink.WriteZeros(0); }), frame);
}

TEST(ZstdSinkTest, TheNumberOfThreadsDoesNotMatter) {
  // Below and above the level from which on jobs are larger, with content for several jobs.
  for (const auto& [level, size] : {std::pair(1, 13'000'000), {3, 13'000'000}, {9, 34'000'000}}) {
    SCOPED_TRACE(level);
    const std::string content = Content(static_cast<std::size_t>(size));
    const Writing write = [&](ByteSink& sink) { sink.Write(Bytes(content)); };
    const std::string frame = Frame(level, 1, write);
    EXPECT_TRUE(Decompressed(frame) == content);
    for (const unsigned threads : {2U, 3U, 1000U, 0U}) {
      EXPECT_TRUE(Frame(level, threads, write) == frame) << threads << " threads";
    }
  }
}

TEST(ZstdSinkTest, TheSizesOfTheWritesDoNotMatter) {
  const std::string content = Content(9'500'000);
  const auto frame = [&](std::size_t step) {
    return Frame(3, 2, [&](ByteSink& sink) { WriteInSteps(sink, content, step); });
  };
  const std::string whole = frame(content.size());
  for (const std::size_t step : {311U, 4096U, 1'000'003U, 4U << 20}) {
    EXPECT_TRUE(frame(step) == whole) << "steps of " << step;
  }
}

TEST(ZstdSinkTest, WritingZerosIsTheSame) {
  const std::string head = Noise(1000, 1);
  for (const std::size_t count : {1U, 262'143U, 262'144U, 262'145U, 9'000'000U}) {
    const std::string zeros(count, '\0');
    const std::string frame = Frame(3, 2, [&](ByteSink& sink) {
      sink.Write(Bytes(head));
      sink.WriteZeros(count);
      sink.Write(Bytes(head));
    });
    EXPECT_TRUE(Decompressed(frame) == head + zeros + head) << count;
    EXPECT_TRUE(frame == Frame(3, 2,
                               [&](ByteSink& sink) {
                                 sink.Write(Bytes(head));
                                 sink.Write(Bytes(zeros));
                                 sink.Write(Bytes(head));
                               }))
        << count;
  }
}

TEST(ByteSinkTest, ReportsAnUnwritableFile) {
  const TempDir dir;
  test::WriteFile(dir / "file", "old");
  const base::UniqueFd fd(open((dir / "file").c_str(), O_RDONLY | O_CLOEXEC));
  const std::string content = Noise(100, 1);
  const auto plain = MakeFileSink(fd.get());
  EXPECT_MSB_ERROR(plain->Write(Bytes(content)), ErrorKind::kIO, "cannot write ", "/file: ");
  plain->WriteZeros(100);
  EXPECT_MSB_ERROR(plain->Finish(), ErrorKind::kIO, "cannot resize ", "/file: ");
  const auto zstd = MakeZstdSink(MakeFileSink(fd.get()), 3, 1);
  zstd->Write(Bytes(content));
  EXPECT_MSB_ERROR(zstd->Finish(), ErrorKind::kIO, "cannot write ", "/file: ");
  EXPECT_EQ(ReadFile(dir / "file"), "old");
}

}  // namespace
}  // namespace msb::archive
