// SPDX-License-Identifier: Apache-2.0
//
// What the tests of RegistryClient share.

#ifndef MSB_TESTS_UNIT_REGISTRY_REGISTRY_FIXTURE_H_
#define MSB_TESTS_UNIT_REGISTRY_REGISTRY_FIXTURE_H_

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "src/base/digest.h"
#include "src/registry/registry_client.h"
#include "tests/support/scoped_variable.h"
#include "tests/support/scripted_registry.h"
#include "tests/support/support.h"

namespace msb::registry {

inline constexpr const char* kRepository = "team/app";
inline constexpr const char* kManifestType = "application/vnd.oci.image.manifest.v1+json";

inline BlobDescriptor DescriptorOf(const std::string& bytes) {
  return {.digest = base::Sha256Digest(bytes), .size = bytes.size()};
}

inline NewBlob BlobOf(const std::string& bytes, const std::string& mount_from = {}) {
  return {.descriptor = DescriptorOf(bytes),
          .bytes = std::make_shared<const std::string>(bytes),
          .mount_from = mount_from};
}

// Answers with this status, and asks for a repetition at once if the status means that.
inline test::ScriptedAnswer Status(int status) {
  return {.status = status, .headers = {{"Retry-After", "0"}}};
}

class RegistryFixture : public testing::Test {
 protected:
  // Puts or gets one blob, and returns what the client reports.
  static PutResult Put(RegistryClient& client, NewBlob blob) {
    std::optional<PutResult> result;
    client.PutBlob(kRepository, std::move(blob), [&](PutResult put) { result = put; });
    client.Run([&] { return result.has_value(); });
    return *result;
  }
  static std::string Get(RegistryClient& client, const BlobDescriptor& descriptor) {
    std::optional<std::string> got;
    client.GetBlob(kRepository, descriptor, [&](std::string bytes) { got = std::move(bytes); });
    client.Run([&] { return got.has_value(); });
    return *got;
  }

  static std::string BlobPath(const std::string& digest) {
    return std::string("/v2/") + kRepository + "/blobs/" + digest;
  }

  RegistryClient MakeClient(const RegistryOptions& options = {}) const {
    return RegistryClient(ctx_, registry_.host(), options);
  }

  // Expects that call throws an error of this kind with a message that names the registry and the
  // repository, and contains the texts, but none of the secrets that the tests use.
  void ExpectError(const std::function<void()>& call, ErrorKind kind,
                   std::initializer_list<std::string> named) const {
    try {
      call();
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(kind)) << e.what();
      EXPECT_TRUE(test::Names(e.what(), {registry_.host(), kRepository}));
      EXPECT_TRUE(test::Names(e.what(), named));
      for (const char* secret : {"s3cret", "token-1", "token-2", "Basic am9l"}) {
        EXPECT_EQ(std::string_view(e.what()).find(secret), std::string_view::npos) << e.what();
      }
    }
  }

  const test::TempDir dir_;
  // Without credentials of the user who runs the tests.
  const test::ScopedVariable docker_config_{"DOCKER_CONFIG", dir_.path().native()};
  const Context ctx_ = test::Soon();
  test::ScriptedRegistry registry_;
};

}  // namespace msb::registry

#endif  // MSB_TESTS_UNIT_REGISTRY_REGISTRY_FIXTURE_H_
