// SPDX-License-Identifier: Apache-2.0
//
// Images as they are in a cache, for tests that damage them.

#ifndef MSB_TESTS_UNIT_ARCHIVE_IMAGE_SAMPLE_H_
#define MSB_TESTS_UNIT_ARCHIVE_IMAGE_SAMPLE_H_

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "msb/disk.h"
#include "src/archive/image_names.h"
#include "src/archive/vmdk.h"
#include "src/base/digest.h"
#include "src/base/json.h"
#include "tests/support/support.h"

namespace msb::archive {

inline const std::string kOtherCache = "/srv/elsewhere/cache";

// An image and its files, as pairs of "KIND/FILE" and content.
struct ImageSample {
  Image image;
  std::map<std::string, std::string> files;
  std::string metadata;  // Names of some of the files.
  std::string fsmeta;
  std::string vmdk;
  std::string layer;  // The lowest layer.

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& [name, content] : files) names.push_back(name);
    return names;
  }
  void Write(const std::filesystem::path& dir) const {
    for (const auto& [name, content] : files) test::WriteFile(dir / name, content);
  }
};

// Returns an OCI image. layers has a text for each layer; equal texts mean the same layer.
inline ImageSample MakeOciImage(const std::string& reference,
                                const std::vector<std::string>& layers = {"one", "two", "one"},
                                const std::string& cache = kOtherCache) {
  base::Json diff_ids = base::Json::array();
  base::Json layer_fields = base::Json::array();
  for (const std::string& layer : layers) {
    diff_ids.push_back(base::Sha256Digest(layer));
    layer_fields.push_back({{"diff_id", base::Sha256Digest(layer)},
                            {"digest", base::Sha256Digest(layer + " compressed")}});
  }
  const std::string config = base::Json{{"rootfs", {{"diff_ids", diff_ids}}}}.dump();
  const std::string manifest = base::Json{
      {"config", {{"digest", base::Sha256Digest(config)}}},
      {"layers", layer_fields}}.dump();
  const std::string digest = base::Sha256Digest(manifest);
  ImageSample sample{.image = {reference, digest},
                     .files = {},
                     .metadata = MetadataFile(reference),
                     .fsmeta = FsmetaFile(digest),
                     .vmdk = VmdkFile(digest),
                     .layer = LayerFile(base::Sha256Digest(layers[0]))};
  sample.files[sample.metadata] = base::Json{
      {"manifest_digest", digest},
      {"config_digest", base::Sha256Digest(config)},
      {"raw_manifest_json", manifest},
      {"raw_config_json", config},
      {"layers", layer_fields}}.dump();
  sample.files[sample.fsmeta] = test::Noise(4096, 1);
  std::vector<VmdkExtent> extents = {{sample.fsmeta, 8, 0}};
  for (const std::string& layer : layers) {
    const std::string file = LayerFile(base::Sha256Digest(layer));
    sample.files[file] = test::Noise(512 * layer.size(), 2);
    extents.push_back({file, layer.size(), 0});
  }
  sample.files[sample.vmdk] = FormatVmdk(cache, extents);
  return sample;
}

inline ImageSample MakeDiskImage(const std::string& content, const std::string& suffix) {
  const std::string digest = base::Sha256Digest(content);
  ImageSample sample;
  sample.image = {"/data/base.img", digest};
  sample.files["disks/sha256_" + digest.substr(7) + suffix] = content;
  return sample;
}

inline std::string Replaced(std::string text, const std::string& old, const std::string& by) {
  for (std::size_t at = text.find(old); at != std::string::npos; at = text.find(old, at)) {
    text.replace(at, old.size(), by);
    at += by.size();
  }
  return text;
}

}  // namespace msb::archive

#endif  // MSB_TESTS_UNIT_ARCHIVE_IMAGE_SAMPLE_H_
