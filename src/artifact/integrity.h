// The hashes that a snapshot may record of its upper.

#ifndef MSB_SRC_ARTIFACT_INTEGRITY_H_
#define MSB_SRC_ARTIFACT_INTEGRITY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "src/disk/scan.h"

namespace msb::artifact {

inline constexpr std::string_view kSha256 = "sha256";
inline constexpr std::string_view kSparseSha256 = "msb-sparse-sha256-v1";
inline constexpr std::string_view kFileMerkle = "msb-file-merkle-blake3-v1";

// What a manifest records; digest is "sha256:…", or for kFileMerkle its root, "blake3:…".
struct Integrity {
  std::string algorithm;
  std::string digest;

  bool operator==(const Integrity&) const = default;
};

// Computes one of the hashes while a file's data passes.
class IntegrityHasher {
 public:
  virtual ~IntegrityHasher() = default;
  virtual disk::RegionConsumer& consumer() = 0;
  // The digest; call once, after the last region.
  virtual std::string Finish() = 0;
};

// A hasher for a file of size bytes; ctx must outlive it. kUnsupportedOperation: an algorithm that
// is not one of the three.
std::unique_ptr<IntegrityHasher> MakeIntegrityHasher(const Context& ctx, std::string_view algorithm,
                                                     std::uint64_t size);

// Reads the first size bytes of an open file. Progress phase "verify".
Integrity ComputeIntegrity(const Context& ctx, int fd, std::uint64_t size,
                           std::string_view algorithm);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_INTEGRITY_H_
