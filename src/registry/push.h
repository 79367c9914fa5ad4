// SPDX-License-Identifier: Apache-2.0
//
// Sends snapshots to a registry.

#ifndef MSB_SRC_REGISTRY_PUSH_H_
#define MSB_SRC_REGISTRY_PUSH_H_

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "msb/registry.h"
#include "src/artifact/store.h"
#include "src/base/digest.h"
#include "src/registry/origins.h"
#include "src/registry/reference.h"

namespace msb::registry {

struct PushSpec {
  Reference reference;
  RegistryOptions options;
  std::vector<artifact::OpenedArtifact> chain;  // Parents first; the last is the head. Not empty.
  // The snapshots that the first of the chain descends from, nearest first, as far as they are
  // known. They are not sent, but the registry may have chunks of them.
  std::vector<base::Digest> ancestors = {};
  std::filesystem::path cache_dir;  // The directory of the image cache.
  bool with_image = false;
  int level = 3;
  std::function<void(std::string_view message)> log;  // Receives warnings.
};

// Sends the data that the registry lacks: chunks first, then manifests, then the index under the
// tag. Returns the reference by the digest of the index. Adds the manifests to the origins of the
// snapshots and image files. Progress phase "push".
// Throws kUnsupportedOperation if a snapshot cannot be sent (archive::PrepareChain), if a file has
// too much data, or if there are too many snapshots for one index.
// Throws kSnapshotImageMissing if a file of the image is missing.
// Throws kSnapshotIntegrity if a file changes while it is read, or differs from the integrity that
// its manifest records.
// Throws the errors of RegistryClient.
std::string PushSnapshots(const Context& ctx, const PushSpec& spec, Origins& origins);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_PUSH_H_
