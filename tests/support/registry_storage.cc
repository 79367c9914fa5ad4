// SPDX-License-Identifier: Apache-2.0

#include "tests/support/registry_storage.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "sha256:";

std::string Hex(const std::string& digest) { return digest.substr(kPrefix.size()); }

}  // namespace

fs::path RegistryStorage::PathOf(const std::string& digest) const {
  const std::string hex = Hex(digest);
  return dir_ / "docker/registry/v2/blobs/sha256" / hex.substr(0, 2) / hex;
}

fs::path RegistryStorage::Repositories() const { return dir_ / "docker/registry/v2/repositories"; }

RegistryStorage::Sizes RegistryStorage::Blobs() const {
  Sizes blobs;
  const fs::path root = dir_ / "docker/registry/v2/blobs/sha256";
  if (!fs::exists(root)) return blobs;
  for (const auto& group : fs::directory_iterator(root)) {
    for (const auto& blob : fs::directory_iterator(group)) {
      std::error_code absent;
      const auto size = fs::file_size(blob.path() / "data", absent);
      if (!absent) blobs[std::string(kPrefix) + blob.path().filename().native()] = size;
    }
  }
  return blobs;
}

std::map<std::string, std::string> RegistryStorage::Tags(const std::string& repository) const {
  std::map<std::string, std::string> tags;
  const fs::path dir = Repositories() / repository / "_manifests/tags";
  if (!fs::exists(dir)) return tags;
  for (const auto& tag : fs::directory_iterator(dir)) {
    const fs::path link = tag.path() / "current/link";
    if (fs::exists(link)) tags[tag.path().filename()] = ReadFile(link);
  }
  return tags;
}

RegistryStorage::Sizes RegistryStorage::Layers(const std::string& repository) const {
  Sizes layers;
  const Sizes blobs = Blobs();
  const fs::path dir = Repositories() / repository / "_layers/sha256";
  if (!fs::exists(dir)) return layers;
  for (const auto& layer : fs::directory_iterator(dir)) {
    const auto blob = blobs.find(std::string(kPrefix) + layer.path().filename().native());
    if (blob != blobs.end()) layers.insert(*blob);
  }
  return layers;
}

std::string RegistryStorage::Read(const std::string& digest) const {
  return ReadFile(PathOf(digest) / "data");
}

void RegistryStorage::Clear() { fs::remove_all(dir_); }

void RegistryStorage::Truncate(const std::string& digest, std::uint64_t size) {
  fs::resize_file(PathOf(digest) / "data", size);
}

void RegistryStorage::Remove(const std::string& digest) {
  fs::remove_all(PathOf(digest));
  std::vector<fs::path> links;
  for (const auto& entry : fs::recursive_directory_iterator(Repositories())) {
    if (entry.path().filename() == Hex(digest) &&
        entry.path().parent_path().parent_path().filename() == "_layers") {
      links.push_back(entry.path());
    }
  }
  for (const fs::path& link : links) fs::remove_all(link);
}

std::string RegistryStorage::MissingBelow(const fs::path& repository,
                                          const std::string& digest) const {
  std::string missing;
  const Sizes blobs = Blobs();
  const auto check = [&](const nlohmann::json& descriptor, const char* folder) {
    const std::string name = descriptor.at("digest");
    const auto found = blobs.find(name);
    const bool linked = fs::exists(repository / folder / "sha256" / Hex(name) / "link");
    if (found == blobs.end() || !linked || found->second != descriptor.at("size")) {
      missing += fmt::format("{} needs {}; ", digest, descriptor.dump());
      return false;
    }
    return true;
  };
  const nlohmann::json document = nlohmann::json::parse(Read(digest));
  for (const auto& manifest : document.value("manifests", nlohmann::json::array())) {
    if (check(manifest, "_manifests/revisions")) {
      missing += MissingBelow(repository, manifest.at("digest"));
    }
  }
  if (document.contains("config")) check(document["config"], "_layers");
  for (const auto& layer : document.value("layers", nlohmann::json::array())) {
    check(layer, "_layers");
  }
  return missing;
}

std::string RegistryStorage::Missing() const {
  std::string missing;
  if (!fs::exists(Repositories())) return missing;
  for (fs::recursive_directory_iterator entry(Repositories()), end; entry != end; ++entry) {
    const fs::path& path = entry->path();
    // The others change while a client uses the registry.
    if (path.filename().native().starts_with('_')) entry.disable_recursion_pending();
    if (path.filename() != "_manifests") continue;
    const fs::path repository = path.parent_path();
    for (const auto& [tag, digest] : Tags(repository.lexically_relative(Repositories()))) {
      if (!fs::exists(PathOf(digest) / "data")) {
        missing += fmt::format("the tag {} names {}, which is absent; ", tag, digest);
      } else {
        missing += MissingBelow(repository, digest);
      }
    }
  }
  return missing;
}

RegistryStorage::Sizes Added(const RegistryStorage::Sizes& before,
                             const RegistryStorage::Sizes& after) {
  RegistryStorage::Sizes added;
  for (const auto& [digest, size] : after) {
    if (!before.contains(digest)) added.emplace(digest, size);
  }
  return added;
}

std::uint64_t TotalOf(const RegistryStorage::Sizes& blobs) {
  std::uint64_t total = 0;
  for (const auto& [digest, size] : blobs) total += size;
  return total;
}

}  // namespace msb::test
