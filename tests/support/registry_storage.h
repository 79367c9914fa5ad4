// SPDX-License-Identifier: Apache-2.0
//
// Reads and damages the storage directory of docker-registry, to see what the server has, whatever
// its clients believe.

#ifndef MSB_TESTS_SUPPORT_REGISTRY_STORAGE_H_
#define MSB_TESTS_SUPPORT_REGISTRY_STORAGE_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>

namespace msb::test {

class RegistryStorage {
 public:
  using Sizes = std::map<std::string, std::uint64_t>;  // Bytes by digest, "sha256:…".

  explicit RegistryStorage(std::filesystem::path dir) : dir_(std::move(dir)) {}

  // Returns all blobs, which include manifests and indexes.
  Sizes Blobs() const;
  // Returns the tags of a repository, and the digests that they name.
  std::map<std::string, std::string> Tags(const std::string& repository) const;
  // Returns the blobs that a repository has, without manifests and indexes.
  Sizes Layers(const std::string& repository) const;
  // Returns the content of a blob. Throws std::runtime_error if it is absent.
  std::string Read(const std::string& digest) const;
  // Removes everything, also while the registry runs, as long as it handles no request.
  void Clear();
  // Removes a blob from all repositories, as a garbage collection does that runs too early.
  void Remove(const std::string& digest);
  // Cuts off the end of a blob, as a crash of the registry's machine may.
  void Truncate(const std::string& digest, std::uint64_t size);

  // Returns a description of what is missing: for each tag of each repository, the documents and
  // blobs that it leads to and that the repository does not have, or has with another size. Empty
  // if nothing is missing.
  std::string Missing() const;

 private:
  std::filesystem::path PathOf(const std::string& digest) const;
  std::filesystem::path Repositories() const;
  std::string MissingBelow(const std::filesystem::path& repository,
                           const std::string& digest) const;

  const std::filesystem::path dir_;
};

// Returns the entries of after that before does not have.
RegistryStorage::Sizes Added(const RegistryStorage::Sizes& before,
                             const RegistryStorage::Sizes& after);
// Returns the sum of the sizes.
std::uint64_t TotalOf(const RegistryStorage::Sizes& blobs);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_REGISTRY_STORAGE_H_
