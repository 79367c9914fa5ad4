// SPDX-License-Identifier: Apache-2.0

#include "src/archive/byte_sink.h"
#include "src/base/file.h"

namespace msb::archive {
namespace {

class FileSink : public ByteSink {
 public:
  explicit FileSink(int fd) : fd_(fd) {}

  void Write(std::span<const std::byte> bytes) override {
    base::WriteExactly(fd_, bytes.data(), bytes.size(), position_);
    position_ += bytes.size();
    if (position_ - handed_over_ < kWritebackBytes) return;
    base::BeginWriteback(fd_, handed_over_, position_ - handed_over_);
    handed_over_ = position_;
  }

  void WriteZeros(std::uint64_t count) override { position_ += count; }

  void Finish() override { base::Resize(fd_, position_); }

 private:
  static constexpr std::uint64_t kWritebackBytes = 4 << 20;

  int fd_;
  std::uint64_t position_ = 0;
  std::uint64_t handed_over_ = 0;
};

}  // namespace

std::unique_ptr<ByteSink> MakeFileSink(int fd) { return std::make_unique<FileSink>(fd); }

}  // namespace msb::archive
