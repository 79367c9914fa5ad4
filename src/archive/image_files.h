// SPDX-License-Identifier: Apache-2.0
//
// Finds, checks and installs the image files that an archive or a registry may carry.
//
// In the cache, an OCI image consists of its metadata, fsmeta, vmdk and layers, and a disk image
// consists of one file; image_names.h gives their names. The content of an OCI image's file systems
// cannot be checked, because the digests in the metadata are those of other forms of the layers.
// Importing an image therefore requires as much trust in its sender as pulling an image requires in
// a registry. The checks ensure that an import affects nothing but the images that it brings.

#ifndef MSB_SRC_ARCHIVE_IMAGE_FILES_H_
#define MSB_SRC_ARCHIVE_IMAGE_FILES_H_

#include <filesystem>
#include <string>
#include <vector>

#include "msb/context.h"
#include "msb/disk.h"
#include "src/archive/image_names.h"
#include "src/archive/source_words.h"
#include "src/artifact/store.h"

namespace msb::archive {

// Returns the files of a pinned image, "KIND/FILE" below cache_dir, metadata first. Checks that
// each is a regular file (not a symbolic link), that the metadata is valid and has the pinned
// digest, and that the vmdk names exactly the file systems. Does not read the content of file
// systems and disk images.
// Throws kSnapshotImageMissing if a file is missing, or the image's reference now leads to another
// digest.
// Throws kSnapshotIntegrity if a file is damaged or not a regular file.
std::vector<std::string> FilesOfImage(const std::filesystem::path& cache_dir, const Image& image);

// Returns the files of the images of a chain, each once, in the order of the chain.
std::vector<std::string> FilesOfImages(const std::filesystem::path& cache_dir,
                                       const std::vector<artifact::OpenedArtifact>& chain);

// An ArrivedImages holds the image files that arrived and are not in the cache yet. They are in the
// directory staged, under the same names, "KIND/FILE".
class ArrivedImages {
 public:
  ArrivedImages(std::filesystem::path staged, std::vector<std::string> files,
                std::filesystem::path cache_dir, SourceWords words);

  // Checks that the files are exactly the files of some of these images, that they pass the checks
  // of FilesOfImage, that disk images have the digest and format of their names, and that the cache
  // has no different file of the same name. A vmdk is compared by the extents that it lists, since
  // the paths in it depend on the cache for which it was made. Rewrites each staged vmdk so that it
  // names files in this cache, and changes nothing else.
  // Throws kSnapshotIntegrity if a check fails.
  // Throws kUnsupportedOperation if a vmdk cannot name files in this cache, or a disk image uses a
  // qcow2 feature that is not supported.
  void Check(const Context& ctx, const std::vector<Image>& images);

  // Moves the files that the cache lacks into the cache, and flushes them to disk. Never replaces a
  // file. The files by which an image is found are moved last, so that a crash does not leave an
  // incomplete image. A failure may leave the files that were moved before it: they have been
  // checked, and other calls may use them immediately. Call once, after Check.
  // Throws kSnapshotIntegrity if a different file of the same name has appeared in the cache since
  // Check.
  void Install(const Context& ctx);

 private:
  std::filesystem::path staged_;
  std::vector<std::string> files_;
  std::filesystem::path cache_dir_;
  SourceWords words_;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMAGE_FILES_H_
