// SPDX-License-Identifier: Apache-2.0
//
// Computes the content hashes that a snapshot may record of its upper.

#ifndef MSB_SRC_ARTIFACT_INTEGRITY_H_
#define MSB_SRC_ARTIFACT_INTEGRITY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "src/base/progress.h"
#include "src/disk/scan.h"

namespace msb::artifact {

inline constexpr std::string_view kSha256 = "sha256";
inline constexpr std::string_view kSparseSha256 = "msb-sparse-sha256-v1";
inline constexpr std::string_view kFileMerkle = "msb-file-merkle-blake3-v1";

// The content hash that a manifest records. digest is "sha256:…" or, for kFileMerkle, the root of
// the tree, "blake3:…". A manifest.json may also record an unknown algorithm.
struct Integrity {
  std::string algorithm;
  std::string digest;

  bool operator==(const Integrity&) const = default;
};

// An IntegrityHasher computes one of these hashes while the data of a file passes through
// consumer().
class IntegrityHasher {
 public:
  virtual ~IntegrityHasher() = default;
  virtual disk::RegionConsumer& consumer() = 0;
  // Returns the digest. Call once, after the last region.
  virtual std::string Finish() = 0;
};

// Returns a hasher for a file of size bytes. ctx must outlive it.
// Throws kUnsupportedOperation if algorithm is not one of the three above.
std::unique_ptr<IntegrityHasher> MakeIntegrityHasher(const Context& ctx, std::string_view algorithm,
                                                     std::uint64_t size);

// Computes the integrity of the first size bytes of an open file. Progress phase "verify".
// Throws kUnsupportedOperation if the algorithm is unknown.
Integrity ComputeIntegrity(const Context& ctx, int fd, std::uint64_t size,
                           std::string_view algorithm);
// Does the same as part of a longer phase: adds the bytes that it reads to the meter of that phase.
Integrity ComputeIntegrity(const Context& ctx, int fd, std::uint64_t size,
                           std::string_view algorithm, base::ProgressMeter& meter);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_INTEGRITY_H_
