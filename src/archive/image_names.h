// What the files of the image cache are called: "KIND/FILE", below its directory.

#ifndef MSB_SRC_ARCHIVE_IMAGE_NAMES_H_
#define MSB_SRC_ARCHIVE_IMAGE_NAMES_H_

#include <string>
#include <string_view>

#include "msb/vmm/backend.h"

namespace msb::archive {

// True for what one of the functions below may return.
bool IsImageFile(std::string_view file);
// True for what FsmetaFile and LayerFile may return: the files that a vmdk joins.
bool IsJoinedFile(std::string_view file);

// "docker.io/library/fixture:1" for "fixture:1": the reference under which the runtimes keep an
// image. Any text has one, also the path of a disk image.
std::string NormalizedReference(std::string_view reference);

// manifests/HEX.json; HEX is the SHA-256 of the normalised reference.
std::string MetadataFile(std::string_view reference);

// Digests are "sha256:" and 64 lower-case hex digits; the callers have checked that.
std::string FsmetaFile(std::string_view manifest_digest);  // fsmeta/sha256_HEX.erofs
std::string VmdkFile(std::string_view manifest_digest);    // vmdk/sha256_HEX.vmdk
std::string LayerFile(std::string_view diff_id);           // layers/sha256_HEX.erofs
// disks/sha256_HEX.FORMAT; HEX is the SHA-256 of the content.
std::string DiskImageFile(std::string_view digest, DiskFormat format);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMAGE_NAMES_H_
