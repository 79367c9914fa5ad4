// SPDX-License-Identifier: Apache-2.0

#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "src/archive/byte_sink.h"
#include "src/base/core_count.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

constexpr int kMinLevel = 1;
constexpr int kMaxLevel = 19;
// More threads would only wait for reading and hashing.
constexpr unsigned kMaxThreads = 8;
// The size of a compression job, which runs on one thread, in bytes. It is twice the window of the
// levels up to kMaxSmallJobLevel: so splitting the input hardly makes the frame larger, and all
// jobs together use less than 100 MiB. Higher levels have larger windows, and would spend their
// time on loading them for each job.
constexpr int kJobBytes = 4 << 20;
constexpr int kMaxSmallJobLevel = 8;

std::size_t CheckedZstd(std::size_t result) {
  if (ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation) throw std::bad_alloc();
  if (ZSTD_isError(result) != 0) {
    base::Throw(ErrorKind::kInternal, "cannot compress: {}", ZSTD_getErrorName(result));
  }
  return result;
}

class ZstdSink : public ByteSink {
 public:
  ZstdSink(std::unique_ptr<ByteSink> out, int level, unsigned threads)
      : out_(std::move(out)), context_(ZSTD_createCCtx()), output_(ZSTD_CStreamOutSize()) {
    if (!context_) throw std::bad_alloc();
    if (threads == 0) threads = base::CoreCount();
    Set(ZSTD_c_compressionLevel, level);
    Set(ZSTD_c_checksumFlag, 1);
    if (UseWorkers(std::min(threads, kMaxThreads)) && level <= kMaxSmallJobLevel) {
      Set(ZSTD_c_jobSize, kJobBytes);
    }
  }

  void Write(std::span<const std::byte> bytes) override {
    ZSTD_inBuffer input{bytes.data(), bytes.size(), 0};
    while (input.pos < input.size) Step(input, ZSTD_e_continue);
  }

  void Finish() override {
    ZSTD_inBuffer nothing{nullptr, 0, 0};
    while (Step(nothing, ZSTD_e_end) > 0) {
    }
    out_->Finish();
  }

 private:
  struct Free {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  };

  void Set(ZSTD_cParameter parameter, int value) {
    CheckedZstd(ZSTD_CCtx_setParameter(context_.get(), parameter, value));
  }

  // Returns false if this libzstd was built without threads, as static ones often are. It then
  // compresses on the calling thread.
  bool UseWorkers(unsigned count) {
    const std::size_t result =
        ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_nbWorkers, static_cast<int>(count));
    if (ZSTD_getErrorCode(result) == ZSTD_error_parameter_unsupported) return false;
    CheckedZstd(result);
    return true;
  }

  // Returns a lower bound of the bytes that remain to be flushed; 0 when all are.
  std::size_t Step(ZSTD_inBuffer& input, ZSTD_EndDirective directive) {
    ZSTD_outBuffer output{output_.data(), output_.size(), 0};
    std::size_t result = ZSTD_compressStream2(context_.get(), &output, &input, directive);
    if (!started_ && ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation) {
      // libzstd could not create its threads: compress on the calling thread.
      CheckedZstd(ZSTD_CCtx_reset(context_.get(), ZSTD_reset_session_only));
      Set(ZSTD_c_nbWorkers, 0);
      result = ZSTD_compressStream2(context_.get(), &output, &input, directive);
    }
    const std::size_t remaining = CheckedZstd(result);
    started_ = true;
    if (output.pos > 0) out_->Write(std::span(output_).first(output.pos));
    return remaining;
  }

  std::unique_ptr<ByteSink> out_;
  std::unique_ptr<ZSTD_CCtx, Free> context_;
  std::vector<std::byte> output_;
  bool started_ = false;
};

}  // namespace

void CheckLevel(int level) {
  if (level >= kMinLevel && level <= kMaxLevel) return;
  base::Throw(ErrorKind::kInvalidArgument,
              "compression level {} is invalid: it must be from {} to {}", level, kMinLevel,
              kMaxLevel);
}

std::unique_ptr<ByteSink> MakeZstdSink(std::unique_ptr<ByteSink> out, int level, unsigned threads) {
  return std::make_unique<ZstdSink>(std::move(out), level, threads);
}

}  // namespace msb::archive
