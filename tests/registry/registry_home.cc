// SPDX-License-Identifier: Apache-2.0

#include "tests/registry/registry_home.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <stdexcept>

namespace msb::test {

namespace fs = std::filesystem;

RegistryTest::RegistryTest() : RegistryTest(DockerRegistryOptions{}) {}

RegistryTest::RegistryTest(const DockerRegistryOptions& options) {
  if (DockerRegistry::IsInstalled()) registry_ = std::make_unique<DockerRegistry>(options);
}

void RegistryTest::SetUp() {
  if (!registry_) GTEST_SKIP() << "docker-registry is not installed";
}

Client RegistryTest::Qcow2Home(const std::string& name) {
  return Client({.home = dir_ / name, .backend = "local", .upper_format = DiskFormat::kQcow2});
}

SnapshotArtifact RegistryTest::MakeRaw(
    Client& client, const std::string& name, std::uint64_t size,
    const std::vector<std::pair<std::uint64_t, std::string>>& data, const Labels& labels) {
  const fs::path image = dir_ / (name + ".img");
  MakeSparseFile(image, size, data);
  CreateSandbox(ctx_, name, {WithImage(image.native())}, client).Close();
  return Snapshot::Create(ctx_, name, {.name = name, .labels = labels, .record_integrity = true},
                          client);
}

SnapshotArtifact RegistryTest::MakeRawChild(
    Client& client, const std::string& parent, const std::string& name,
    const std::vector<std::pair<std::uint64_t, std::string>>& data) {
  CreateSandbox(ctx_, name, {WithSnapshot(parent)}, client).Close();
  const fs::path upper = GetSandbox(ctx_, name, client).Upper().path;
  for (const auto& [offset, bytes] : data) PatchFile(upper, offset, bytes);
  return Snapshot::Create(ctx_, name, {.name = name, .record_integrity = true}, client);
}

std::vector<SnapshotArtifact> RegistryTest::MakeChain(Client& client, int count) {
  MakeSparseFile(dir_ / "base.img", 8 << 20, {{0, Noise(70'000, 1)}, {6 << 20, Noise(9'000, 2)}});
  CreateSandbox(ctx_, "vm", {WithImage(dir_ / "base.img")}, client).Close();
  std::vector<SnapshotArtifact> chain;
  for (int n = 1; n <= count; ++n) {
    const auto run = RunCommand(fmt::format("qemu-io -f qcow2 -c 'write -P {} {}k 64k' '{}'", n,
                                            n * 512, GetSandbox(ctx_, "vm", client).Upper().path));
    if (run.status != 0) throw std::runtime_error(run.output);
    chain.push_back(Snapshot::Create(ctx_, "vm",
                                     {.name = fmt::format("s{}", n),
                                      .labels = {{"generation", std::to_string(n)}},
                                      .record_integrity = true},
                                     client));
  }
  return chain;
}

std::uint64_t AllocatedBytes(const fs::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) throw std::runtime_error("no file " + path.native());
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

fs::path UpperOf(const SnapshotArtifact& snapshot) {
  for (const auto& entry : fs::directory_iterator(snapshot.Path())) {
    if (entry.path().stem() == "upper") return entry.path();
  }
  throw std::runtime_error("no upper in " + snapshot.Path());
}

namespace {

// Returns whether file has data only where model has. Where model stores zeros, file may have a
// hole.
bool HasHolesOf(const fs::path& file, const fs::path& model) {
  const auto allowed = ExtentsOf(model);
  return std::ranges::all_of(ExtentsOf(file), [&](const auto& extent) {
    return std::ranges::any_of(allowed, [&](const auto& other) {
      return other.first <= extent.first &&
             extent.first + extent.second <= other.first + other.second;
    });
  });
}

// Returns whether file has the content of model where model has data.
bool HasDataOf(const fs::path& file, const fs::path& model) {
  constexpr std::uint64_t kStep = 1 << 20;
  std::ifstream one(file, std::ios::binary);
  std::ifstream other(model, std::ios::binary);
  std::string found(kStep, '\0');
  std::string expected(kStep, '\0');
  for (const auto& [offset, length] : ExtentsOf(model)) {
    one.seekg(static_cast<std::streamoff>(offset));
    other.seekg(static_cast<std::streamoff>(offset));
    for (std::uint64_t left = length; left > 0; left -= found.size()) {
      found.resize(std::min(left, kStep));
      expected.resize(found.size());
      if (!one.read(found.data(), static_cast<std::streamsize>(found.size())) ||
          !other.read(expected.data(), static_cast<std::streamsize>(expected.size())) ||
          found != expected) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

void ExpectSame(const SnapshotArtifact& expected, const SnapshotArtifact& found) {
  EXPECT_EQ(found.Digest(), expected.Digest());
  EXPECT_EQ(found.Labels(), expected.Labels());
  EXPECT_EQ(found.Parent(), expected.Parent());
  EXPECT_EQ(found.CreatedAt(), expected.CreatedAt());
  EXPECT_EQ(found.ImageManifestDigest(), expected.ImageManifestDigest());
  EXPECT_EQ(found.Integrity(), expected.Integrity());
  EXPECT_EQ(found.SizeBytes(), expected.SizeBytes());
  const fs::path here = UpperOf(expected);
  const fs::path there = UpperOf(found);
  EXPECT_EQ(there.filename(), here.filename());
  EXPECT_TRUE(HasHolesOf(there, here));
  EXPECT_TRUE(HasDataOf(there, here));
  // A file system may need a block for a fragmented file.
  EXPECT_LE(AllocatedBytes(there), AllocatedBytes(here) + 4096);
}

namespace {

std::vector<std::string> Hidden(const fs::path& dir, const std::string& prefix) {
  std::vector<std::string> names;
  if (!fs::exists(dir)) return names;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(prefix)) names.push_back(name);
  }
  return names;
}

}  // namespace

void ExpectNoStages(const fs::path& dir) {
  EXPECT_EQ(Hidden(dir, ".msb-"), std::vector<std::string>()) << "in " << dir;
}

std::vector<std::string> PullStages(const fs::path& dir) { return Hidden(dir, ".msb-pull-"); }

std::string FastNoise(std::size_t size, std::uint64_t seed) {
  std::array<unsigned char, 16> key{};
  std::memcpy(key.data(), &seed, sizeof seed);
  const std::array<unsigned char, 16> counter{};
  std::string bytes(size, '\0');
  auto* const data = reinterpret_cast<unsigned char*>(bytes.data());
  const std::unique_ptr<EVP_CIPHER_CTX, void (*)(EVP_CIPHER_CTX*)> context(EVP_CIPHER_CTX_new(),
                                                                           EVP_CIPHER_CTX_free);
  int written = 0;
  if (EVP_EncryptInit_ex(context.get(), EVP_aes_128_ctr(), nullptr, key.data(), counter.data()) !=
          1 ||
      EVP_EncryptUpdate(context.get(), data, &written, data, static_cast<int>(size)) != 1) {
    throw std::runtime_error("cannot make noise");
  }
  return bytes;
}

}  // namespace msb::test
