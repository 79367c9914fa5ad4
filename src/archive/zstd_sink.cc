#include <zstd.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "src/archive/byte_sink.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

// More would wait for the reading and the hashing.
constexpr unsigned kMaxThreads = 8;
// What one thread compresses at a time, bytes: twice the window of the levels up to
// kMaxSmallJobLevel, so that it costs hardly any size, and all jobs together stay below 100 MiB.
// Higher levels have larger windows, and would spend their time on loading them for each job.
constexpr int kJobBytes = 4 << 20;
constexpr int kMaxSmallJobLevel = 8;

std::size_t Checked(std::size_t result) {
  if (ZSTD_isError(result) != 0) {
    base::Throw(ErrorKind::kInternal, "cannot compress: {}", ZSTD_getErrorName(result));
  }
  return result;
}

class ZstdSink : public ByteSink {
 public:
  ZstdSink(int fd, int level, unsigned threads)
      : file_(MakeFileSink(fd)), context_(ZSTD_createCCtx()), output_(ZSTD_CStreamOutSize()) {
    if (!context_) throw std::bad_alloc();
    if (threads == 0) threads = std::max(1U, std::thread::hardware_concurrency());
    Set(ZSTD_c_compressionLevel, level);
    Set(ZSTD_c_checksumFlag, 1);
    Set(ZSTD_c_nbWorkers, static_cast<int>(std::min(threads, kMaxThreads)));
    if (level <= kMaxSmallJobLevel) Set(ZSTD_c_jobSize, kJobBytes);
  }

  void Write(std::span<const std::byte> bytes) override {
    ZSTD_inBuffer input{bytes.data(), bytes.size(), 0};
    while (input.pos < input.size) Step(input, ZSTD_e_continue);
  }

  void WriteZeros(std::uint64_t count) override {
    static const std::vector<std::byte> zeros(256 << 10);
    while (count > 0) {
      const std::uint64_t step = std::min<std::uint64_t>(count, zeros.size());
      Write(std::span(zeros).first(step));
      count -= step;
    }
  }

  void Finish() override {
    ZSTD_inBuffer nothing{nullptr, 0, 0};
    while (Step(nothing, ZSTD_e_end) > 0) {
    }
    file_->Finish();
  }

 private:
  struct Free {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  };

  void Set(ZSTD_cParameter parameter, int value) {
    Checked(ZSTD_CCtx_setParameter(context_.get(), parameter, value));
  }

  // Returns what remains to be done, 0 at the end.
  std::size_t Step(ZSTD_inBuffer& input, ZSTD_EndDirective directive) {
    ZSTD_outBuffer output{output_.data(), output_.size(), 0};
    const std::size_t remaining =
        Checked(ZSTD_compressStream2(context_.get(), &output, &input, directive));
    if (output.pos > 0) file_->Write(std::span(output_).first(output.pos));
    return remaining;
  }

  std::unique_ptr<ByteSink> file_;
  std::unique_ptr<ZSTD_CCtx, Free> context_;
  std::vector<std::byte> output_;
};

}  // namespace

std::unique_ptr<ByteSink> MakeZstdSink(int fd, int level, unsigned threads) {
  return std::make_unique<ZstdSink>(fd, level, threads);
}

}  // namespace msb::archive
