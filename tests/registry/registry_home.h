// SPDX-License-Identifier: Apache-2.0
//
// What the tests with a real registry share: a registry, homes with snapshots, and comparisons of
// what was pushed with what was pulled.

#ifndef MSB_TESTS_REGISTRY_REGISTRY_HOME_H_
#define MSB_TESTS_REGISTRY_REGISTRY_HOME_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/docker_registry.h"
#include "tests/support/support.h"
#include "tests/support/tcp_proxy.h"

namespace msb::test {

// The size of a chunk of a disk that is not very large, in bytes.
inline constexpr std::uint64_t kChunkBytes = 8 << 20;

using Labels = std::map<std::string, std::string>;

// A test with a registry, and a directory for homes. Skipped if docker-registry is missing.
class RegistryTest : public ::testing::Test {
 protected:
  RegistryTest();
  explicit RegistryTest(const DockerRegistryOptions& options);
  void SetUp() override;

  DockerRegistry& registry() { return *registry_; }
  RegistryStorage& storage() { return registry_->storage(); }
  // Returns "127.0.0.1:PORT/name".
  std::string At(const std::string& name) { return registry_->address() + "/" + name; }

  // Returns a client of the home dir_/name.
  Client Home(const std::string& name) { return LocalClient(dir_ / name); }
  // Returns a client of the home dir_/name whose sandboxes have qcow2 disks.
  Client Qcow2Home(const std::string& name);

  // Makes a raw snapshot of a disk of size bytes with this data.
  SnapshotArtifact MakeRaw(Client& client, const std::string& name, std::uint64_t size,
                           const std::vector<std::pair<std::uint64_t, std::string>>& data,
                           const Labels& labels = {});
  // Makes a child of a raw snapshot, in which these ranges are changed.
  SnapshotArtifact MakeRawChild(Client& client, const std::string& parent, const std::string& name,
                                const std::vector<std::pair<std::uint64_t, std::string>>& data);
  // Makes the snapshots "s1" to "sN" of a qcow2 sandbox whose disk has 8 MiB. Generation n has
  // 64 KiB of the byte n at n * 512 KiB, and the label generation=n.
  std::vector<SnapshotArtifact> MakeChain(Client& client, int count);

  const Context ctx_ = Soon();
  TempDir dir_;

 private:
  std::unique_ptr<DockerRegistry> registry_;
};

// Returns the bytes that a file occupies on the disk.
std::uint64_t AllocatedBytes(const std::filesystem::path& path);
// Returns the path of the upper of a snapshot.
std::filesystem::path UpperOf(const SnapshotArtifact& snapshot);

// Expects two artifacts to be the same snapshot: metadata, integrity, content and holes.
void ExpectSame(const SnapshotArtifact& expected, const SnapshotArtifact& found);
// Expects no stages below a directory.
void ExpectNoStages(const std::filesystem::path& dir);
// Returns the names of the stages below a directory that an interrupted Pull has left.
std::vector<std::string> PullStages(const std::filesystem::path& dir);

// Returns size bytes that cannot be compressed, faster than Noise.
std::string FastNoise(std::size_t size, std::uint64_t seed);

}  // namespace msb::test

#endif  // MSB_TESTS_REGISTRY_REGISTRY_HOME_H_
