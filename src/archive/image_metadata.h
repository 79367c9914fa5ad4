// SPDX-License-Identifier: Apache-2.0
//
// Parses the metadata of an OCI image in the cache, manifests/HEX.json.

#ifndef MSB_SRC_ARCHIVE_IMAGE_METADATA_H_
#define MSB_SRC_ARCHIVE_IMAGE_METADATA_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace msb::archive {

// The longest metadata that is accepted, in bytes.
inline constexpr std::size_t kMaxImageMetadataBytes = 8 << 20;

struct ImageMetadata {
  std::string manifest_digest;        // "sha256:…"
  std::vector<std::string> diff_ids;  // "sha256:…" of each layer, the lowest first.
};

// Parses the metadata. Ignores fields that are not needed for the checks.
// Throws std::invalid_argument if the embedded manifest or config does not have the digest that is
// recorded for it, if the manifest names another config, or if the layers in text, in the manifest
// and in the config differ.
ImageMetadata ParseImageMetadata(std::string_view text);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMAGE_METADATA_H_
