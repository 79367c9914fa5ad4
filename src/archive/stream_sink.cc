// SPDX-License-Identifier: Apache-2.0

#include "src/archive/byte_sink.h"

namespace msb::archive {
namespace {

class StreamSink : public ByteSink {
 public:
  StreamSink(const Context& ctx, base::OutputStream& stream) : ctx_(ctx), stream_(stream) {}

  void Write(std::span<const std::byte> bytes) override { stream_.Write(ctx_, bytes); }

  void Finish() override {}

 private:
  const Context& ctx_;
  base::OutputStream& stream_;
};

}  // namespace

std::unique_ptr<ByteSink> MakeStreamSink(const Context& ctx, base::OutputStream& stream) {
  return std::make_unique<StreamSink>(ctx, stream);
}

}  // namespace msb::archive
