// SPDX-License-Identifier: Apache-2.0
//
// An ArchiveInput delivers the tar stream of an archive. It reads and decompresses ahead on a
// thread of its own. If no thread can be created, Next reads and decompresses.

#ifndef MSB_SRC_ARCHIVE_ARCHIVE_INPUT_H_
#define MSB_SRC_ARCHIVE_ARCHIVE_INPUT_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "msb/context.h"
#include "src/base/input_stream.h"
#include "src/base/progress.h"

namespace msb::archive {

// The largest window of a zstd frame that is accepted, as a power of two: 64 MiB. Releases use
// windows of 2 MiB, `zstd -19` of 8 MiB.
inline constexpr int kMaxWindowLog = 26;

class ArchiveInput {
 public:
  // The size in bytes of all blocks but the last.
  static constexpr std::size_t kBlockBytes = 1 << 20;

  // Adds the number of bytes that it reads from file to meter. ctx, file and meter must outlive the
  // input.
  ArchiveInput(const Context& ctx, base::InputStream& file, base::ProgressMeter& meter);
  ArchiveInput(const ArchiveInput&) = delete;
  ArchiveInput& operator=(const ArchiveInput&) = delete;
  ~ArchiveInput();

  // Returns the next block, or an empty block at the end. A block stays valid during the next call
  // of Next, and becomes invalid with the call after that. Not thread-safe: calls must not overlap.
  // Throws kSnapshotIntegrity if the archive is compressed, but is not one valid zstd frame,
  // optionally followed by skippable frames.
  // Throws kIO if the file cannot be read.
  // Throws kCancelled if ctx is done, or after Stop.
  std::span<const std::byte> Next();
  // Makes a call of Next that is waiting in another thread, and all later calls, throw kCancelled.
  void Stop();

  // Returns the number of bytes of the archive that have been read. It covers at least the blocks
  // that Next has returned.
  std::uint64_t bytes_read() const { return bytes_read_; }

 private:
  using Block = std::vector<std::byte>;

  enum class State { kStart, kPlain, kZstd, kAfterZstd, kEnd };
  struct Decoder;

  void Run();
  // Reads the next block; empty at the end.
  Block ReadBlock();
  Block ReadFirst();
  Block ReadPlain();
  Block Decompress();
  void SkipTrailingFrames(std::span<const std::byte> unused);
  std::size_t Read(Block& buffer);
  // Returns an empty block, which reuses the memory of an earlier one if possible.
  Block NewBlock();
  // Passes a block to Next. Waits while too many blocks are ready. Throws kCancelled after Stop.
  void Push(Block block);
  // Throws kCancelled after Stop, or if ctx is done.
  void CheckWanted();

  const Context& ctx_;
  base::InputStream& file_;
  base::ProgressMeter& meter_;
  std::atomic<std::uint64_t> bytes_read_ = 0;
  Block current_;   // The block that Next returned last.
  Block previous_;  // The block before that.

  // Used only by the thread, if there is one.
  State state_ = State::kStart;
  std::unique_ptr<Decoder> decoder_;

  std::mutex mutex_;  // Guards the fields from here to failure_.
  std::condition_variable changed_;
  std::deque<Block> ready_;
  std::vector<Block> spare_;
  bool ended_ = false;
  bool abandoned_ = false;
  std::exception_ptr failure_;

  std::jthread thread_;  // Not joinable if it could not be created.
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_ARCHIVE_INPUT_H_
