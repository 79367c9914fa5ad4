// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/base/digest.h"
#include "tests/support/archive_sample.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

constexpr std::size_t kFsmetaBytes = 8192;
constexpr std::size_t kLayerBytes = 8192;
constexpr std::string_view kOtherCache = "/srv/elsewhere/cache";

// Returns noise, except for the fields that the releases check: the EROFS superblock, and a root
// inode that is a directory.
std::string Erofs(std::size_t size, std::uint32_t seed) {
  std::string superblock(128, '\0');
  superblock.replace(0, 4, "\xe2\xe1\xf5\xe0");
  superblock[8] = 1;                               // Compatible features: checksum.
  superblock[12] = 12;                             // Block size: 2^12 bytes.
  superblock[36] = static_cast<char>(size >> 12);  // Number of blocks.
  superblock[40] = 1;                              // The inodes start in block 1.
  std::string root(64, '\0');
  root[0] = 5;
  root.replace(4, 2, "\xed\x41");  // Mode: a directory, 0755.
  root[8] = 57;
  root[44] = 2;
  return Noise(size, seed)
      .replace(1024, superblock.size(), superblock)
      .replace(4096, root.size(), root);
}

std::string Vmdk(const std::string& fsmeta, const std::string& layer) {
  return fmt::format(
      "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
      "createType=\"twoGbMaxExtentFlat\"\n\n# Extent description\n"
      "RW {} FLAT \"{}/{}\" 0\nRW {} FLAT \"{}/{}\" 0\n\n"
      "# The Disk Data Base\n#DDB\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"1\"\n"
      "ddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n",
      kFsmetaBytes / 512, kOtherCache, fsmeta, kLayerBytes / 512, kOtherCache, layer);
}

}  // namespace

SampleImage MakeSampleImage(const std::string& name) {
  const std::string diff_id = base::Sha256Digest("layer of " + name);
  const Json config = {{"architecture", "amd64"},
                       {"os", "linux"},
                       {"config", {{"Cmd", {"/bin/sh"}}, {"Env", {"PATH=/bin:/usr/bin"}}}},
                       {"rootfs", {{"type", "layers"}, {"diff_ids", {diff_id}}}},
                       {"history", Json::array()}};
  const std::string config_digest = base::Sha256Digest(config.dump());
  const std::string layer_type = "application/vnd.oci.image.layer.v1.tar";
  const Json manifest = {
      {"config",
       {{"digest", config_digest},
        {"mediaType", "application/vnd.oci.image.config.v1+json"},
        {"size", config.dump().size()}}},
      {"layers", {{{"digest", diff_id}, {"mediaType", layer_type}, {"size", 10240}}}},
      {"mediaType", "application/vnd.oci.image.manifest.v1+json"},
      {"schemaVersion", 2}};
  const std::string digest = base::Sha256Digest(manifest.dump());
  const Json metadata = {{"manifest_digest", digest},
                         {"config_digest", config_digest},
                         {"raw_manifest_json", manifest.dump()},
                         {"raw_config_json", config.dump()},
                         {"config",
                          {{"env", {"PATH=/bin:/usr/bin"}},
                           {"cmd", {"/bin/sh"}},
                           {"entrypoint", nullptr},
                           {"working_dir", nullptr},
                           {"user", nullptr},
                           {"exposed_ports", Json::array()},
                           {"volumes", Json::array()},
                           {"labels", Json::object()},
                           {"stop_signal", nullptr}}},
                         {"layers",
                          {{{"digest", diff_id},
                            {"media_type", layer_type},
                            {"size_bytes", 10240},
                            {"diff_id", diff_id}}}}};
  const std::string reference = base::Sha256Digest("docker.io/library/" + name).substr(7);
  const std::string fsmeta = "fsmeta/sha256_" + digest.substr(7) + ".erofs";
  const std::string layer = "layers/sha256_" + diff_id.substr(7) + ".erofs";
  return {.image = {.ref = name, .manifest_digest = digest},
          .files = {{"manifests/" + reference + ".json", metadata.dump()},
                    {fsmeta, Erofs(kFsmetaBytes, 11)},
                    {"vmdk/sha256_" + digest.substr(7) + ".vmdk", Vmdk(fsmeta, layer)},
                    {layer, Erofs(kLayerBytes, 12)}}};
}

}  // namespace msb::test
