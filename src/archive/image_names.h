// SPDX-License-Identifier: Apache-2.0
//
// Determines the names of the files in the image cache: "KIND/FILE", relative to the directory of
// the cache.

#ifndef MSB_SRC_ARCHIVE_IMAGE_NAMES_H_
#define MSB_SRC_ARCHIVE_IMAGE_NAMES_H_

#include <string>
#include <string_view>

#include "msb/disk.h"

namespace msb::archive {

// Returns true if one of the functions below can return this name.
bool IsImageFile(std::string_view file);
// Returns true if DiskImageFile can return this name.
bool IsDiskImageFile(std::string_view file);
// Returns true if FsmetaFile or LayerFile can return this name, as for the files that a vmdk joins.
bool IsJoinedFile(std::string_view file);

// Returns the reference under which the runtimes keep an image: "docker.io/library/fixture:1" for
// "fixture:1". Accepts any text, for example the path of a disk image.
std::string NormalizedReference(std::string_view reference);

// Returns manifests/HEX.json, where HEX is the SHA-256 of the normalized reference.
std::string MetadataFile(std::string_view reference);

// The digests must be "sha256:" and 64 lower-case hex digits; the caller must have checked that.
std::string FsmetaFile(std::string_view manifest_digest);  // fsmeta/sha256_HEX.erofs
std::string VmdkFile(std::string_view manifest_digest);    // vmdk/sha256_HEX.vmdk
std::string LayerFile(std::string_view diff_id);           // layers/sha256_HEX.erofs
// Returns disks/sha256_HEX.FORMAT, where HEX is the SHA-256 of the content.
std::string DiskImageFile(std::string_view digest, DiskFormat format);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMAGE_NAMES_H_
