// SPDX-License-Identifier: Apache-2.0

#include "src/archive/archive_input.h"

#include <gtest/gtest.h>

#include <memory>
#include <semaphore>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "src/base/progress.h"
#include "tests/support/fed_pipe.h"
#include "tests/support/support.h"
#include "tests/support/zstd_frame.h"

namespace msb::archive {
namespace {

using test::Compress;
using test::FedPipe;
using test::Noise;
using test::TempDir;

constexpr std::size_t kBlock = ArchiveInput::kBlockBytes;

std::string Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// An input that reads from a path, with everything that must outlive it.
class Input {
 public:
  explicit Input(const std::filesystem::path& path, Context ctx = Context::Background())
      : ctx_(std::move(ctx)), file_(path), meter_(ctx_, "read", 0), input_(ctx_, file_, meter_) {}

  std::span<const std::byte> Next() { return input_.Next(); }
  std::uint64_t bytes_read() const { return input_.bytes_read(); }
  base::ProgressMeter& meter() { return meter_; }

  // Waits until the thread has read this many bytes.
  void AwaitRead(std::uint64_t bytes) const {
    while (bytes_read() < bytes) std::this_thread::yield();
  }

 private:
  const Context ctx_;
  base::InputStream file_;
  base::ProgressMeter meter_;
  ArchiveInput input_;
};

// Reads everything up to the end or a failure into content. Checks the sizes of the blocks.
std::string ReadAll(Input& input, std::string& content) {
  for (bool last = false;;) {
    const auto block = input.Next();
    if (block.empty()) return content;
    EXPECT_FALSE(last) << "more after a short block";
    EXPECT_LE(block.size(), kBlock);
    last = block.size() < kBlock;
    content += Text(block);
  }
}

// Returns what is read from a file with these bytes.
std::string ReadFileOf(const std::string& bytes) {
  const TempDir dir;
  test::WriteFile(dir / "archive", bytes);
  Input input(dir / "archive");
  std::string content;
  ReadAll(input, content);
  EXPECT_EQ(input.bytes_read(), bytes.size());
  EXPECT_TRUE(input.Next().empty()) << "no end";
  return content;
}

std::string ReadPipeOf(const std::string& bytes) {
  const FedPipe pipe([&](const FedPipe::Write& write) {
    for (std::size_t done = 0; done < bytes.size(); done += 100'003) {
      write(std::string_view(bytes).substr(done, 100'003));
    }
  });
  Input input(pipe.path());
  std::string content;
  return ReadAll(input, content);
}

TEST(ArchiveInputTest, ReadsFilesAndPipesPlainAndCompressed) {
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{3}, std::size_t{4}, kBlock - 1, kBlock,
        kBlock + 1, 2 * kBlock, 12 * kBlock, 12 * kBlock + 7}) {
    SCOPED_TRACE(size);
    const std::string content = Noise(size, 1);
    const std::string frame = Compress(content);
    EXPECT_TRUE(ReadFileOf(content) == content);
    EXPECT_TRUE(ReadPipeOf(content) == content);
    EXPECT_TRUE(ReadFileOf(frame) == content);
    EXPECT_TRUE(ReadPipeOf(frame) == content);
  }
}

TEST(ArchiveInputTest, ReadsHighlyCompressedArchives) {
  const std::uint64_t size = (std::uint64_t{30} << 20) + 5;
  const std::string content(size, '\0');
  const std::string frame = test::StoredFrame({{.bytes = {}, .zeros = size}});
  ASSERT_LT(frame.size(), 2000U);
  EXPECT_TRUE(ReadFileOf(frame) == content);
}

TEST(ArchiveInputTest, TreatsOtherBytesThanAFrameAsPlain) {
  for (const std::string content : {"\x28\xb5\x2f", "\x28\xb5\x2f\xfe and more", "BZh91AY"}) {
    EXPECT_EQ(ReadFileOf(content), content);
  }
  const std::string skippable = test::SkippableFrame("skipped") + Compress("content");
  EXPECT_EQ(ReadFileOf(skippable), skippable);
}

TEST(ArchiveInputTest, TheLastTwoBlocksStayAsTheyAre) {
  const TempDir dir;
  const std::string content = Noise(20 * kBlock + 100, 1);
  for (const bool compressed : {false, true}) {
    test::WriteFile(dir / "archive", compressed ? Compress(content) : content);
    Input input(dir / "archive");
    std::span<const std::byte> previous;
    for (std::size_t done = 0; done < content.size();) {
      const auto block = input.Next();
      ASSERT_FALSE(block.empty());
      // Noise does not compress, so as much is read in both cases. The thread must read ahead into
      // other blocks.
      input.AwaitRead(std::min(content.size(), done + 4 * kBlock));
      EXPECT_TRUE(Text(previous) == content.substr(done - previous.size(), previous.size()));
      EXPECT_TRUE(Text(block) == content.substr(done, block.size()));
      done += block.size();
      previous = block;
    }
    EXPECT_TRUE(input.Next().empty());
    EXPECT_TRUE(content.ends_with(Text(previous)));
  }
}

TEST(ArchiveInputTest, ReadsOnlyAFewBlocksAhead) {
  const TempDir dir;
  test::WriteFile(dir / "archive", std::string(40 * kBlock, 'a'));
  Input input(dir / "archive");
  for (std::size_t n = 1; n <= 40; ++n) {
    input.Next();
    EXPECT_LE(input.bytes_read(), (n + 8) * kBlock);
  }
}

TEST(ArchiveInputTest, CountsTheBytesOfTheArchive) {
  const TempDir dir;
  const std::string frame = Compress(Noise(3 * kBlock, 1) + std::string(3 * kBlock, '\0'));
  test::WriteFile(dir / "archive", frame);
  std::uint64_t reported = 0;
  Input input(dir / "archive", Context::Background().WithProgress([&](const Progress& progress) {
    reported = progress.bytes_done;
  }));
  std::string content;
  ReadAll(input, content);
  input.meter().Finish();
  EXPECT_EQ(input.bytes_read(), frame.size());
  EXPECT_EQ(reported, frame.size());
}

// Expects Next to refuse the archive after a part of content, and once more if it is called again.
void ExpectRefused(const std::string& bytes, const std::string& content) {
  const TempDir dir;
  test::WriteFile(dir / "archive", bytes);
  Input input(dir / "archive");
  std::string before;
  EXPECT_MSB_ERROR(ReadAll(input, before), ErrorKind::kSnapshotIntegrity,
                   "not a valid zstd frame: ", "copy or export it again");
  EXPECT_MSB_ERROR(input.Next(), ErrorKind::kSnapshotIntegrity,
                   "not a valid zstd frame: ", "copy or export it again");
  EXPECT_TRUE(content.starts_with(before));
}

TEST(ArchiveInputTest, RefusesAFrameThatIsCut) {
  const std::string content = Noise(3 * kBlock, 1);
  const std::string frame = Compress(content);
  for (const std::size_t size : {std::size_t{4}, std::size_t{5}, std::size_t{100}, kBlock,
                                 kBlock + 1, frame.size() - 4, frame.size() - 1}) {
    SCOPED_TRACE(size);
    ExpectRefused(frame.substr(0, size), content);
  }
}

TEST(ArchiveInputTest, RefusesADamagedFrame) {
  const std::string content = Noise(kBlock, 1);
  const std::string frame = Compress(content);
  for (const std::size_t at : {std::size_t{4}, frame.size() / 2, frame.size() - 1}) {
    SCOPED_TRACE(at);
    std::string damaged = frame;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x08);
    const TempDir dir;
    test::WriteFile(dir / "archive", damaged);
    Input input(dir / "archive");
    std::string before;
    EXPECT_MSB_ERROR(ReadAll(input, before), ErrorKind::kSnapshotIntegrity,
                     "not a valid zstd frame: ", "copy or export it again");
  }
}

TEST(ArchiveInputTest, RefusesBytesAfterTheFrame) {
  // The frame ends in the middle of a block, or at the end of one.
  for (const std::size_t size : {std::size_t{1000}, kBlock}) {
    SCOPED_TRACE(size);
    const std::string content = Noise(size, 1);
    std::string frame = test::StoredFrame({{.bytes = content}});
    ExpectRefused(frame + '\0', content);
    ExpectRefused(frame + "garbage", content);
    ExpectRefused(frame + frame, content);
    ExpectRefused(frame + test::SkippableFrame("skipped") + "x", content);
    ExpectRefused(frame + test::SkippableFrame("skipped") + frame, content);
    const std::string skippable = test::SkippableFrame("skipped");
    ExpectRefused(frame + skippable.substr(0, skippable.size() - 1), content);
    ExpectRefused(frame + skippable.substr(0, 7), content);
  }
  // The frame ends where a read ends.
  std::string frame;
  std::string content = Noise(kBlock, 1);
  while ((frame = test::StoredFrame({{.bytes = content}})).size() > kBlock) content.pop_back();
  ASSERT_EQ(frame.size(), kBlock);
  EXPECT_TRUE(ReadFileOf(frame) == content);
  ExpectRefused(frame + "x", content);
}

TEST(ArchiveInputTest, SkipsSkippableFramesAfterTheFrame) {
  for (const std::size_t size : {std::size_t{1000}, kBlock}) {
    SCOPED_TRACE(size);
    const std::string content = Noise(size, 1);
    const std::string frame = test::StoredFrame({{.bytes = content}});
    const std::string skipped = test::SkippableFrame("") + test::SkippableFrame("skipped");
    EXPECT_TRUE(ReadFileOf(frame + skipped) == content);
  }
}

TEST(ArchiveInputTest, RefusesLargeWindows) {
  const std::string content = Noise(1000, 1);
  const auto frame = [&](unsigned window_log) {
    return test::StoredFrame({{.bytes = content}}, window_log);
  };
  EXPECT_EQ(ReadFileOf(frame(kMaxWindowLog)), content);
  ExpectRefused(frame(kMaxWindowLog + 1), "");
  ExpectRefused(frame(41), "");
}

TEST(ArchiveInputTest, ReportsAnUnreadableFile) {
  // It can be opened, but not read from its beginning.
  Input input("/proc/self/mem");
  EXPECT_MSB_ERROR(input.Next(), ErrorKind::kIO, "cannot read /proc/self/mem: ");
}

// A pipe that delivers some bytes and then stalls without an end.
class StalledPipe {
 public:
  explicit StalledPipe(std::string bytes)
      : pipe_([this, bytes = std::move(bytes)](const FedPipe::Write& write) {
          write(bytes);
          released_.acquire();
        }) {}
  ~StalledPipe() { released_.release(); }

  std::string path() const { return pipe_.path(); }

 private:
  std::binary_semaphore released_{0};
  FedPipe pipe_;
};

TEST(ArchiveInputTest, IsDestroyedPromptlyWhileItWaitsForAPipe) {
  const std::string content = Noise(kBlock, 1);
  for (const std::string& bytes :
       {std::string(), content, content + "more", Compress(content).substr(0, kBlock)}) {
    const StalledPipe pipe(bytes);
    auto input = std::make_unique<Input>(pipe.path());
    input->AwaitRead(bytes.size() / kBlock * kBlock);
    input.reset();  // The pipe delivers nothing more until then.
  }
}

TEST(ArchiveInputTest, EndsPromptlyWhileItsBlocksAreNotTaken) {
  const TempDir dir;
  test::WriteFile(dir / "plain", std::string(20 * kBlock, 'a'));
  test::WriteFile(dir / "frame", Compress(std::string(20 * kBlock, 'a')));
  for (const char* name : {"plain", "frame"}) {
    auto input = std::make_unique<Input>(dir / name);
    EXPECT_EQ(input->Next().size(), kBlock);
    input.reset();  // The thread waits for a free block until then.
  }
}

TEST(ArchiveInputTest, StopsWaitingForAPipeWhenCancelled) {
  for (const std::string& bytes : {std::string(), Noise(kBlock, 1)}) {
    const StalledPipe pipe(bytes);
    const auto [ctx, cancel] = Context::Background().WithCancel();
    Input input(pipe.path(), ctx);
    EXPECT_EQ(bytes.empty() ? 0 : input.Next().size(), bytes.size());
    const std::jthread canceller([&cancel = cancel] { cancel(); });
    EXPECT_MSB_ERROR(input.Next(), ErrorKind::kCancelled, "cancelled");
    EXPECT_MSB_ERROR(input.Next(), ErrorKind::kCancelled, "cancelled");
  }
}

}  // namespace
}  // namespace msb::archive
