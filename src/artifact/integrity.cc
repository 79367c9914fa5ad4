#include "src/artifact/integrity.h"

#include <algorithm>
#include <array>
#include <vector>

#include "src/artifact/merkle.h"
#include "src/base/digest.h"
#include "src/base/fork.h"
#include "src/base/throw.h"

namespace msb::artifact {
namespace {

class MerkleIntegrity : public IntegrityHasher {
 public:
  explicit MerkleIntegrity(std::uint64_t size) : hasher_(size) {}
  disk::RegionConsumer& consumer() override { return hasher_; }
  std::string Finish() override { return hasher_.Finish(); }

 private:
  MerkleHasher hasher_;
};

// Computes the SHA-256 of the logical content. It cannot be computed in parts, so holes are hashed
// as the zeros that they read as.
class Sha256Integrity : public IntegrityHasher, disk::RegionConsumer {
 public:
  Sha256Integrity(const Context& ctx, std::uint64_t size) : ctx_(ctx), size_(size) {}

  void AddPreamble(std::string_view domain) {
    hash_.Update(domain.data(), domain.size());
    std::array<std::uint8_t, 8> size{};
    for (std::size_t i = 0; i < size.size(); ++i) {
      size[i] = static_cast<std::uint8_t>(size_ >> (8 * i));
    }
    hash_.Update(size.data(), size.size());
  }

  disk::RegionConsumer& consumer() override { return *this; }

  void Commit(const disk::Region& region) override {
    for (const disk::Extent& extent : region.data) {
      AddZerosUpTo(extent.offset);
      hash_.Update(region.bytes.data() + (extent.offset - region.offset), extent.length);
      position_ = extent.end();
    }
  }

  std::string Finish() override {
    AddZerosUpTo(size_);
    return hash_.Finish();
  }

 private:
  void AddZerosUpTo(std::uint64_t end) {
    static constinit base::Lazy<std::vector<std::byte>> lazy_zeros;
    const std::vector<std::byte>& zeros =
        lazy_zeros.Get([] { return std::vector<std::byte>(1 << 20); });
    while (position_ < end) {
      ctx_.Check();
      const std::size_t step = std::min<std::uint64_t>(zeros.size(), end - position_);
      hash_.Update(zeros.data(), step);
      position_ += step;
    }
  }

  const Context& ctx_;
  const std::uint64_t size_;
  std::uint64_t position_ = 0;
  base::Sha256 hash_;
};

}  // namespace

std::unique_ptr<IntegrityHasher> MakeIntegrityHasher(const Context& ctx, std::string_view algorithm,
                                                     std::uint64_t size) {
  using namespace std::string_view_literals;
  if (algorithm == kFileMerkle) return std::make_unique<MerkleIntegrity>(size);
  auto hasher = std::make_unique<Sha256Integrity>(ctx, size);
  if (algorithm == kSparseSha256) {
    hasher->AddPreamble("msb-sparse-sha256-v1\0"sv);
  } else if (algorithm != kSha256) {
    base::Throw(ErrorKind::kUnsupportedOperation, "unknown integrity algorithm '{}'", algorithm);
  }
  return hasher;
}

Integrity ComputeIntegrity(const Context& ctx, int fd, std::uint64_t size,
                           std::string_view algorithm) {
  ctx.Check();  // Reading checks ctx, but a file that is one hole is not read.
  const bool wanted = base::ProgressMeter::Wanted(ctx);
  base::ProgressMeter meter(ctx, "verify", wanted ? disk::CountDataBytes(ctx, fd, size) : 0);
  Integrity integrity = ComputeIntegrity(ctx, fd, size, algorithm, meter);
  meter.Finish();
  return integrity;
}

Integrity ComputeIntegrity(const Context& ctx, int fd, std::uint64_t size,
                           std::string_view algorithm, base::ProgressMeter& meter) {
  const auto hasher = MakeIntegrityHasher(ctx, algorithm, size);
  disk::ScanData(fd, size, meter, hasher->consumer());
  return {std::string(algorithm), hasher->Finish()};
}

}  // namespace msb::artifact
