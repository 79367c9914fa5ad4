#include "src/archive/archive_input.h"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <memory>

#include "src/base/throw.h"

namespace msb::archive {
namespace {

using base::Throw;

// Blocks that wait for their reader.
constexpr std::size_t kBlocksAhead = 8;

constexpr std::array<std::byte, 4> kZstdMagic{std::byte{0x28}, std::byte{0xb5}, std::byte{0x2f},
                                              std::byte{0xfd}};

struct FreeDecoder {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

[[noreturn]] void RefuseFrame(std::string_view problem) {
  Throw(ErrorKind::kSnapshotIntegrity, "the archive is no sound zstd frame: {}", problem);
}

}  // namespace

ArchiveInput::ArchiveInput(const Context& ctx, base::InputStream& file, base::ProgressMeter& meter)
    : ctx_(ctx), file_(file), meter_(meter), thread_([this] { Run(); }) {}

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
  changed_.wait(lock, [&] { return !ready_.empty() || ended_ || abandoned_; });
  if (abandoned_) Throw(ErrorKind::kCancelled, "the archive is not read to its end");
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
    Block first = NewBlock();
    first.resize(kBlockBytes);
    first.resize(Read(first));
    if (first.size() >= kZstdMagic.size() &&
        std::equal(kZstdMagic.begin(), kZstdMagic.end(), first.begin())) {
      Decompress(first);
    } else {
      CopyPlain(std::move(first));
    }
  } catch (...) {
    failure = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  failure_ = failure;
  ended_ = true;
  changed_.notify_all();
}

void ArchiveInput::CopyPlain(Block first) {
  for (Block block = std::move(first); !block.empty();) {
    const bool last = block.size() < kBlockBytes;
    Push(std::move(block));
    if (last) return;
    block = NewBlock();
    block.resize(kBlockBytes);
    block.resize(Read(block));
  }
}

void ArchiveInput::Decompress(const Block& first) {
  const std::unique_ptr<ZSTD_DCtx, FreeDecoder> decoder(ZSTD_createDCtx());
  if (!decoder) throw std::bad_alloc();
  ZSTD_DCtx_setParameter(decoder.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  Block source = first;
  ZSTD_inBuffer input{source.data(), source.size(), 0};
  for (bool frame_ended = false; !frame_ended;) {
    Block block = NewBlock();
    block.resize(kBlockBytes);
    ZSTD_outBuffer output{block.data(), block.size(), 0};
    while (output.pos < output.size && !frame_ended) {
      if (input.pos == input.size) {
        source.resize(kBlockBytes);
        input = {source.data(), Read(source), 0};
      }
      const std::size_t before = output.pos;
      const bool starved = input.size == 0;
      const std::size_t result = ZSTD_decompressStream(decoder.get(), &output, &input);
      if (ZSTD_isError(result) != 0) RefuseFrame(ZSTD_getErrorName(result));
      frame_ended = result == 0;
      if (!frame_ended && starved && output.pos == before) RefuseFrame("it is cut short");
    }
    block.resize(output.pos);
    if (!block.empty()) Push(std::move(block));
  }
  CheckNothingFollows(input.size - input.pos);
}

void ArchiveInput::CheckNothingFollows(std::size_t unused) {
  Block rest(1);
  if (unused > 0 || Read(rest) > 0) {
    RefuseFrame("more bytes follow its end; an archive is a single frame");
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
  if (abandoned_) Throw(ErrorKind::kCancelled, "nobody reads the archive any more");
}

}  // namespace msb::archive
