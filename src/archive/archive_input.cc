// SPDX-License-Identifier: Apache-2.0

#include "src/archive/archive_input.h"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include "src/base/little_endian.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

using base::Throw;

// The maximum number of blocks that may wait for Next.
constexpr std::size_t kBlocksAhead = 8;

constexpr std::array<std::byte, 4> kZstdMagic{std::byte{0x28}, std::byte{0xb5}, std::byte{0x2f},
                                              std::byte{0xfd}};

// A skippable frame is a magic number, the size of its content, and the content.
constexpr std::uint32_t kSkippableMagic = 0x184d2a50;
constexpr std::uint32_t kSkippableMask = 0xfffffff0;
constexpr std::size_t kSkippableHeaderBytes = 8;

// The maximum number of bytes of skippable frames that may follow the frame of an archive, in
// total.
constexpr std::uint64_t kMaxSkippedBytes = 16 << 20;

[[noreturn]] void RefuseFrame(std::string_view problem) {
  Throw(ErrorKind::kSnapshotIntegrity,
        "the archive is not a valid zstd frame: {}; copy or export it again", problem);
}

}  // namespace

struct ArchiveInput::Decoder {
  struct Free {
    void operator()(ZSTD_DCtx* decoder) const { ZSTD_freeDCtx(decoder); }
  };

  explicit Decoder(Block first) : source(std::move(first)), context(ZSTD_createDCtx()) {
    if (!context) throw std::bad_alloc();
    ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
    input = {source.data(), source.size(), 0};
  }

  Block source;
  ZSTD_inBuffer input{};  // A view of source.
  std::unique_ptr<ZSTD_DCtx, Free> context;
};

ArchiveInput::ArchiveInput(const Context& ctx, base::InputStream& file, base::ProgressMeter& meter)
    : ctx_(ctx), file_(file), meter_(meter) {
  try {
    thread_ = std::jthread([this] { Run(); });
  } catch (const std::system_error&) {
    // No thread can be created, so Next reads and decompresses.
  }
}

ArchiveInput::~ArchiveInput() { Stop(); }

void ArchiveInput::Stop() {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
  changed_.notify_all();
}

std::span<const std::byte> ArchiveInput::Next() {
  std::unique_lock lock(mutex_);
  if (previous_.capacity() > 0) spare_.push_back(std::move(previous_));
  previous_ = std::move(current_);
  current_ = {};
  if (!thread_.joinable()) {
    lock.unlock();
    CheckWanted();
    current_ = ReadBlock();
    return current_;
  }
  changed_.wait(lock, [&] { return !ready_.empty() || ended_ || abandoned_; });
  if (abandoned_) Throw(ErrorKind::kCancelled, "reading the archive was cancelled");
  if (!ready_.empty()) {
    current_ = std::move(ready_.front());
    ready_.pop_front();
    changed_.notify_all();
  } else if (failure_) {
    std::rethrow_exception(failure_);
  }
  return current_;
}

void ArchiveInput::Run() {
  std::exception_ptr failure;
  try {
    for (Block block = ReadBlock(); !block.empty(); block = ReadBlock()) Push(std::move(block));
  } catch (...) {
    failure = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  failure_ = failure;
  ended_ = true;
  changed_.notify_all();
}

ArchiveInput::Block ArchiveInput::ReadBlock() {
  Block block;
  while (block.empty() && state_ != State::kEnd) {
    switch (state_) {
      case State::kStart:
        block = ReadFirst();
        break;
      case State::kPlain:
        block = ReadPlain();
        break;
      case State::kZstd:
        block = Decompress();
        break;
      case State::kAfterZstd:
        SkipTrailingFrames(
            std::span(decoder_->source)
                .subspan(decoder_->input.pos, decoder_->input.size - decoder_->input.pos));
        state_ = State::kEnd;
        break;
      case State::kEnd:
        break;
    }
  }
  return block;
}

// Reads the first block, and detects whether the archive is compressed. Returns an empty block if
// it is; the decoder then has the bytes that were read.
ArchiveInput::Block ArchiveInput::ReadFirst() {
  state_ = State::kPlain;
  Block block = ReadPlain();
  if (block.size() < kZstdMagic.size() ||
      !std::equal(kZstdMagic.begin(), kZstdMagic.end(), block.begin())) {
    return block;
  }
  decoder_ = std::make_unique<Decoder>(std::move(block));
  state_ = State::kZstd;
  return {};
}

ArchiveInput::Block ArchiveInput::ReadPlain() {
  Block block = NewBlock();
  block.resize(kBlockBytes);
  block.resize(Read(block));
  if (block.size() < kBlockBytes) state_ = State::kEnd;
  return block;
}

ArchiveInput::Block ArchiveInput::Decompress() {
  Block& source = decoder_->source;
  ZSTD_inBuffer& input = decoder_->input;
  Block block = NewBlock();
  block.resize(kBlockBytes);
  ZSTD_outBuffer output{block.data(), block.size(), 0};
  while (output.pos < output.size && state_ == State::kZstd) {
    if (input.pos == input.size) {
      source.resize(kBlockBytes);
      input = {source.data(), Read(source), 0};
    }
    const std::size_t before = output.pos;
    const bool starved = input.size == 0;
    const std::size_t result = ZSTD_decompressStream(decoder_->context.get(), &output, &input);
    if (ZSTD_isError(result) != 0) RefuseFrame(ZSTD_getErrorName(result));
    if (result == 0) {
      state_ = State::kAfterZstd;
    } else if (starved && output.pos == before) {
      RefuseFrame("it is truncated");
    }
  }
  block.resize(output.pos);
  return block;
}

// Skips the skippable frames that follow the archive's frame, and refuses anything else. unused is
// the part of the current input after that frame. Releases ignore everything after the first frame.
void ArchiveInput::SkipTrailingFrames(std::span<const std::byte> unused) {
  Block block;
  std::uint64_t skipped = 0;
  // Reads up to size bytes into header, or skips them if header is null. Returns the number of
  // bytes that were available.
  const auto take = [&](std::uint64_t size, std::byte* header) {
    std::uint64_t taken = 0;
    while (taken < size) {
      if (unused.empty()) {
        block.resize(kBlockBytes);
        unused = std::span(block).first(Read(block));
        if (unused.empty()) break;
      }
      const auto step =
          static_cast<std::size_t>(std::min<std::uint64_t>(size - taken, unused.size()));
      if (header != nullptr) std::copy_n(unused.begin(), step, header + taken);
      unused = unused.subspan(step);
      taken += step;
    }
    return taken;
  };
  for (;;) {
    std::array<std::byte, kSkippableHeaderBytes> header{};
    const std::uint64_t found = take(header.size(), header.data());
    if (found == 0) return;
    const std::uint64_t magic = base::LoadLittleEndian(std::span(header).first<4>());
    if (found < header.size() || (magic & kSkippableMask) != kSkippableMagic) {
      RefuseFrame("more bytes follow its end; an archive is a single frame");
    }
    const std::uint64_t size = base::LoadLittleEndian(std::span(header).last<4>());
    skipped += header.size() + size;
    if (skipped > kMaxSkippedBytes) {
      RefuseFrame("more than " + std::to_string(kMaxSkippedBytes) +
                  " bytes of skippable frames follow it");
    }
    if (take(size, nullptr) < size) RefuseFrame("a skippable frame that follows it is truncated");
  }
}

std::size_t ArchiveInput::Read(Block& buffer) {
  const std::size_t n = file_.Read(buffer, [this] { CheckWanted(); });
  bytes_read_ += n;
  meter_.Add(n);
  return n;
}

ArchiveInput::Block ArchiveInput::NewBlock() {
  const std::lock_guard lock(mutex_);
  if (spare_.empty()) return {};
  Block block = std::move(spare_.back());
  spare_.pop_back();
  return block;
}

void ArchiveInput::Push(Block block) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ready_.size() < kBlocksAhead || abandoned_; });
  ready_.push_back(std::move(block));
  changed_.notify_all();
  lock.unlock();
  CheckWanted();
}

void ArchiveInput::CheckWanted() {
  ctx_.Check();
  const std::lock_guard lock(mutex_);
  if (abandoned_) Throw(ErrorKind::kCancelled, "reading the archive was cancelled");
}

}  // namespace msb::archive
