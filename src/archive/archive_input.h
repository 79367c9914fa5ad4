// The tar stream of an archive, read and decompressed ahead by a thread of its own.

#ifndef MSB_SRC_ARCHIVE_ARCHIVE_INPUT_H_
#define MSB_SRC_ARCHIVE_ARCHIVE_INPUT_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "msb/context.h"
#include "src/base/input_stream.h"
#include "src/base/progress.h"

namespace msb::archive {

// The largest window that a zstd frame may ask for, as a power of two: 64 MiB. Releases ask for
// 2 MiB, `zstd -19` for 8 MiB.
inline constexpr int kMaxWindowLog = 26;

class ArchiveInput {
 public:
  // Bytes; all blocks but the last have this size.
  static constexpr std::size_t kBlockBytes = 1 << 20;

  // Adds what it reads of the file to meter. All three must outlive the input.
  ArchiveInput(const Context& ctx, base::InputStream& file, base::ProgressMeter& meter);
  ArchiveInput(const ArchiveInput&) = delete;
  ArchiveInput& operator=(const ArchiveInput&) = delete;
  ~ArchiveInput();

  // The next block; empty at the end. Valid until the call after the next one. To be called by one
  // thread at a time. kSnapshotIntegrity: not exactly one sound zstd frame; kIO, kCancelled.
  std::span<const std::byte> Next();
  // Makes a Next that waits on another thread, and all that follow, throw kCancelled.
  void Stop();

  // Bytes of the archive that the thread has read, at least those that Next's blocks came from.
  std::uint64_t bytes_read() const { return bytes_read_; }

 private:
  using Block = std::vector<std::byte>;

  void Run();
  void CopyPlain(Block first);
  void Decompress(const Block& first);
  void CheckNothingFollows(std::size_t unused);
  std::size_t Read(Block& buffer);
  // An empty block with room for kBlockBytes.
  Block NewBlock();
  // False if nobody wants it any more.
  void Push(Block block);
  void CheckWanted();

  const Context& ctx_;
  base::InputStream& file_;
  base::ProgressMeter& meter_;
  std::atomic<std::uint64_t> bytes_read_ = 0;
  Block current_;   // What Next gave last,
  Block previous_;  // and the one before that.

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::deque<Block> ready_;
  std::vector<Block> spare_;
  bool ended_ = false;
  bool abandoned_ = false;
  std::exception_ptr failure_;

  std::jthread thread_;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_ARCHIVE_INPUT_H_
