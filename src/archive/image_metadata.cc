// SPDX-License-Identifier: Apache-2.0

#include "src/archive/image_metadata.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/base/digest.h"
#include "src/base/fields.h"
#include "src/base/text.h"

namespace msb::archive {
namespace {

using base::Fields;
using base::Json;

// Returns the JSON document embedded in a field, whose text must have this digest.
Json ParseEmbedded(const Fields& fields, std::string_view field, const std::string& digest) {
  const std::string text = fields.Text(field);
  const std::string found = base::Sha256Digest(text);
  if (found != digest) {
    base::Malformed(fields.PathOf(field), fmt::format("has digest {}, not {}", found, digest));
  }
  try {
    return base::ParseJson(text);
  } catch (const std::invalid_argument& e) {
    throw std::invalid_argument(fmt::format("{}: {}", fields.PathOf(field), e.what()));
  }
}

const Json& Array(const Fields& fields, std::string_view field) {
  const Json& array = fields.At(field);
  if (!array.is_array()) base::MalformedType(fields.PathOf(field), "an array", array);
  return array;
}

std::vector<std::string> ParseDiffIds(const Json& config) {
  const Fields fields(config, "raw_config_json", {"rootfs"}, Fields::Others::kIgnore);
  const Fields rootfs(fields.At("rootfs"), "raw_config_json.rootfs", {"diff_ids"},
                      Fields::Others::kIgnore);
  std::vector<std::string> diff_ids;
  for (const Json& diff_id : Array(rootfs, "diff_ids")) {
    if (!diff_id.is_string() || !base::IsDigest(diff_id.get_ref<const std::string&>(), "sha256")) {
      base::Malformed(fmt::format("{}[{}]", rootfs.PathOf("diff_ids"), diff_ids.size()),
                      "must be 'sha256:' and 64 lower-case hex digits");
    }
    diff_ids.push_back(diff_id.get<std::string>());
  }
  return diff_ids;
}

void CheckCount(const std::string& field, std::size_t found, std::size_t expected) {
  if (found == expected) return;
  base::Malformed(
      field, fmt::format("has {}, but the image has {}", base::Count(found, "layer"), expected));
}

}  // namespace

ImageMetadata ParseImageMetadata(std::string_view text) {
  const Json document = base::ParseJson(text);
  const Fields fields(
      document, "",
      {"manifest_digest", "config_digest", "raw_manifest_json", "raw_config_json", "layers"},
      Fields::Others::kIgnore);
  ImageMetadata metadata;
  metadata.manifest_digest = fields.Digest("manifest_digest", "sha256");
  const std::string config_digest = fields.Digest("config_digest", "sha256");

  // An image index, which lists several manifests, is refused here: it has no config.
  const Json manifest = ParseEmbedded(fields, "raw_manifest_json", metadata.manifest_digest);
  const Fields manifest_fields(manifest, "raw_manifest_json", {"config", "layers"},
                               Fields::Others::kIgnore);
  Fields(manifest_fields.At("config"), "raw_manifest_json.config", {"digest"},
         Fields::Others::kIgnore)
      .Expect("digest", config_digest);
  metadata.diff_ids = ParseDiffIds(ParseEmbedded(fields, "raw_config_json", config_digest));

  const Json& manifest_layers = Array(manifest_fields, "layers");
  CheckCount("raw_manifest_json.layers", manifest_layers.size(), metadata.diff_ids.size());
  const Json& layers = Array(fields, "layers");
  CheckCount("layers", layers.size(), metadata.diff_ids.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Fields layer(layers[i], fmt::format("layers[{}]", i), {"diff_id", "digest"},
                       Fields::Others::kIgnore);
    layer.Expect("diff_id", metadata.diff_ids[i]);
    layer.Expect("digest",
                 Fields(manifest_layers[i], fmt::format("raw_manifest_json.layers[{}]", i),
                        {"digest"}, Fields::Others::kIgnore)
                     .At("digest"));
  }
  return metadata;
}

}  // namespace msb::archive
