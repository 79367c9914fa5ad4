// The files of the image cache that an archive with an image carries: which they are, whether they
// are sound, and how they come into the cache.
//
// An OCI image is in the cache as its metadata, fsmeta, vmdk and layers, a disk image as one file;
// image_names.h says what they are called. What an OCI image's file systems hold cannot be checked,
// since the digests in its metadata are of other forms of the layers: whoever imports an image
// trusts its sender as much as a registry. What can be checked is that nothing else is touched.

#ifndef MSB_SRC_ARCHIVE_IMAGE_FILES_H_
#define MSB_SRC_ARCHIVE_IMAGE_FILES_H_

#include <filesystem>
#include <string>
#include <vector>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/archive/image_names.h"

namespace msb::archive {

// The files of a pinned image below cache_dir, "KIND/FILE", metadata first. Checks that each is
// there as a regular file (no symbolic link), that the metadata is sound and of the pinned digest,
// and that the vmdk names exactly the file systems. Does not read what those and disk images hold.
// kSnapshotImageMissing; kSnapshotIntegrity: one is damaged.
std::vector<std::string> FilesOfImage(const std::filesystem::path& cache_dir,
                                      const vmm::Image& image);

// Image files that arrived, not yet in the cache: below staged, under the same "KIND/FILE".
class ArrivedImages {
 public:
  ArrivedImages(std::filesystem::path staged, std::vector<std::string> files,
                std::filesystem::path cache_dir);

  // Throws kSnapshotIntegrity unless the files are, all together, exactly those of some of these
  // images, sound as FilesOfImage demands, disk images of their digest and format, and for each of
  // them the cache has none or an identical one. A vmdk names the other files by the path of the
  // cache they came from: the staged one is rewritten to name this cache, and counts as identical
  // if it joins the same. kUnsupportedOperation: no vmdk can name this cache. Changes nothing else.
  void Check(const Context& ctx, const std::vector<vmm::Image>& images);

  // Moves what the cache lacks into it, on disk when this returns; never over a file that is there.
  // What an image is found by comes last, so that a crash leaves no image half there; on failure
  // the cache is as before. Call once, after Check. kSnapshotIntegrity: another file of the same
  // name has appeared since.
  void Install(const Context& ctx);

 private:
  std::filesystem::path staged_;
  std::vector<std::string> files_;
  std::filesystem::path cache_dir_;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMAGE_FILES_H_
