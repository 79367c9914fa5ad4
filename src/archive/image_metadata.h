// The metadata of an OCI image in the cache, manifests/HEX.json.

#ifndef MSB_SRC_ARCHIVE_IMAGE_METADATA_H_
#define MSB_SRC_ARCHIVE_IMAGE_METADATA_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace msb::archive {

// Longer metadata is refused, bytes.
inline constexpr std::size_t kMaxImageMetadataBytes = 8 << 20;

struct ImageMetadata {
  std::string manifest_digest;        // "sha256:…"
  std::vector<std::string> diff_ids;  // "sha256:…" of each layer, the lowest first.
};

// Throws std::invalid_argument unless the digests that text states are those of the manifest and
// of the config in it, which are of one image, and its layers are that image's. Fields that are not
// needed for that may be anything.
ImageMetadata ParseImageMetadata(std::string_view text);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMAGE_METADATA_H_
