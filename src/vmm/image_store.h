// Disk images, each kept once in the cache under its SHA-256: cache/disks/sha256_HEX.{raw,qcow2}.

#ifndef MSB_SRC_VMM_IMAGE_STORE_H_
#define MSB_SRC_VMM_IMAGE_STORE_H_

#include <filesystem>
#include <string>

#include "msb/context.h"
#include "msb/vmm/backend.h"

namespace msb::vmm {

struct PinnedImage {
  Image image;
  Disk disk;  // In the cache; must not be written to.
};

class ImageStore {
 public:
  explicit ImageStore(const std::filesystem::path& cache_dir) : dir_(cache_dir / "disks") {}

  // Pins the disk image file that reference is the path of, or the cached image that it is the
  // digest of ("sha256:…"). A file that was pinned before and has not changed since (size,
  // modification and change time, inode) is not read again. kImageNotFound.
  PinnedImage Pin(const Context& ctx, const std::string& reference);

 private:
  PinnedImage PinFile(const Context& ctx, const std::string& reference);

  std::filesystem::path dir_;
};

// The name of the file system in the raw disk image fd, by its superblock; "unknown".
std::string ProbeFileSystem(int fd);
// qcow2 by its magic, "QFI\xfb"; else raw.
DiskFormat ProbeFormat(int fd);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_IMAGE_STORE_H_
