// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/integrity.h"

#include <array>
#include <cstddef>

#include "src/artifact/merkle.h"
#include "src/base/little_endian.h"
#include "src/base/throw.h"
#include "src/disk/content_sha256.h"

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

class Sha256Integrity : public IntegrityHasher {
 public:
  Sha256Integrity(const Context& ctx, std::uint64_t size) : hasher_(ctx, size) {}
  disk::RegionConsumer& consumer() override { return hasher_; }
  std::string Finish() override { return hasher_.Finish(); }

  // Hashes the domain and the size of the file before its content.
  void AddPreamble(std::string_view domain, std::uint64_t file_size) {
    hasher_.AddPreamble(domain);
    std::array<std::byte, sizeof file_size> size{};
    base::StoreLittleEndian(file_size, size);
    hasher_.AddPreamble({reinterpret_cast<const char*>(size.data()), size.size()});
  }

 private:
  disk::ContentSha256 hasher_;
};

}  // namespace

std::unique_ptr<IntegrityHasher> MakeIntegrityHasher(const Context& ctx, std::string_view algorithm,
                                                     std::uint64_t size) {
  using namespace std::string_view_literals;
  if (algorithm == kFileMerkle) return std::make_unique<MerkleIntegrity>(size);
  auto hasher = std::make_unique<Sha256Integrity>(ctx, size);
  if (algorithm == kSparseSha256) {
    hasher->AddPreamble("msb-sparse-sha256-v1\0"sv, size);
  } else if (algorithm != kSha256) {
    base::Throw(ErrorKind::kUnsupportedOperation,
                "integrity algorithm '{}' is not supported: it must be {}, {} or {}", algorithm,
                kSha256, kSparseSha256, kFileMerkle);
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
