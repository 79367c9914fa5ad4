// SPDX-License-Identifier: Apache-2.0
//
// An ImageStore keeps one copy of each disk image in the cache, named after its SHA-256:
// cache/disks/sha256_HEX.{raw,qcow2}.

#ifndef MSB_SRC_VMM_IMAGE_STORE_H_
#define MSB_SRC_VMM_IMAGE_STORE_H_

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/base/home.h"

namespace msb::vmm {

struct PinnedImage {
  Image image;
  Disk disk;  // The copy in the cache, which must not be written to.
};

class ImageStore {
 public:
  using Log = std::function<void(std::string_view message)>;

  explicit ImageStore(const base::Home& home, Log log = {})
      : dir_(home.DisksDir()), pins_dir_(home.PinsDir()), log_(std::move(log)) {}

  // Pins a disk image. reference is the path of an image file, which is copied into the cache, or
  // the digest ("sha256:…") of an image that is in the cache. A file that was pinned before and has
  // not changed since (device, inode, size, modification and change time) is not read again, unless
  // a program had it open for writing then, or it is on a file system whose times do not follow
  // stores through mappings, such as tmpfs.
  // Throws kImageNotFound if there is no such file, or no such image in the cache.
  // Throws what disk::ProbeImage and disk::CheckQcow2 throw if they refuse the file.
  // Throws kIO if the file changes while it is copied.
  PinnedImage Pin(const Context& ctx, const std::string& reference);

 private:
  PinnedImage PinFile(const Context& ctx, const std::string& reference);

  std::filesystem::path dir_;
  std::filesystem::path pins_dir_;
  Log log_;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_IMAGE_STORE_H_
