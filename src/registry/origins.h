// SPDX-License-Identifier: Apache-2.0
//
// Remembers in a file (base::Home::RegistriesFile) to which repositories snapshots and files of
// images were pushed and from which they were pulled, with the digests of their manifests. A push
// of a child can then reuse their chunks, also from another repository of the same registry. The
// digest ensures that the manifest has not been replaced since.

#ifndef MSB_SRC_REGISTRY_ORIGINS_H_
#define MSB_SRC_REGISTRY_ORIGINS_H_

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace msb::registry {

// A manifest in a registry.
struct Origin {
  std::string repository;
  std::string manifest;  // Its digest.

  bool operator==(const Origin&) const = default;
};

// A Transferred represents an object that was pushed or pulled: a snapshot, by its digest, or a
// file of an image, by its name in the cache, and the digest of its manifest in the registry.
struct Transferred {
  std::string object;
  std::string manifest;
};

// The file only saves time: if it cannot be read it counts as empty, and a failure to write it is
// logged. Several processes may use it.
class Origins {
 public:
  Origins(std::filesystem::path file, std::function<void(std::string_view)> log);

  // Returns the manifests of an object in this registry, the last used first.
  std::vector<Origin> Find(std::string_view registry, std::string_view object) const;
  // Adds the repository to the origins of these objects; their manifests replace those recorded for
  // it before. At most 1,024 pairs of an object and a repository are kept, the last used ones.
  void Add(const std::string& registry, const std::string& repository,
           const std::vector<Transferred>& objects) noexcept;

 private:
  const std::filesystem::path file_;
  const std::function<void(std::string_view)> log_;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_ORIGINS_H_
