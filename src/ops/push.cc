// SPDX-License-Identifier: Apache-2.0

#include "src/ops/push.h"

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "src/archive/byte_sink.h"
#include "src/base/digest.h"
#include "src/base/throw.h"
#include "src/handle/export_lineage.h"
#include "src/handle/finder.h"
#include "src/ops/open.h"
#include "src/registry/documents.h"
#include "src/registry/origins.h"
#include "src/registry/push.h"

namespace msb::ops {
namespace {

// The maximum number of ancestors that are looked up in the registry.
constexpr std::size_t kMaxAncestors = 64;

registry::Reference ParseTarget(const std::string& text) {
  registry::Reference reference = registry::Reference::Parse(text);
  if (reference.digest) {
    base::Throw(ErrorKind::kInvalidArgument,
                "cannot push to {}, which has a digest; name a tag, as in HOST/REPOSITORY:TAG",
                text);
  }
  if (registry::IsReservedTag(reference.tag)) {
    base::Throw(ErrorKind::kInvalidArgument,
                "cannot push to {}: Push itself uses tags of the form snapshot-HEX and image-HEX; "
                "choose another tag",
                text);
  }
  return reference;
}

// Returns the digests of the snapshots that this one descends from, nearest first. A missing one
// ends the list.
std::vector<base::Digest> AncestorsOf(handle::SnapshotFinder& finder, artifact::Artifact snapshot) {
  std::vector<base::Digest> ancestors;
  while (snapshot.manifest.parent && ancestors.size() < kMaxAncestors) {
    const auto digest = base::Digest::Parse(*snapshot.manifest.parent);
    if (!digest) break;
    ancestors.push_back(*digest);
    try {
      snapshot = finder.FindParent(snapshot).artifact;
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::kCancelled) throw;
      break;  // Ancestors only save time.
    }
  }
  return ancestors;
}

}  // namespace

std::string PushSnapshot(const Context& ctx, ClientState& client, const std::string& name_or_path,
                         const std::string& reference, const SnapshotPushOptions& options) {
  archive::CheckLevel(options.level);
  const auto log = [&client](std::string_view message) { client.Log(message); };
  registry::PushSpec spec{.reference = ParseTarget(reference),
                          .options = options.registry,
                          .chain = {},
                          .cache_dir = client.home.cache_dir(),
                          .with_image = options.with_image,
                          .level = options.level,
                          .log = log};
  handle::SnapshotFinder finder(ctx, client.catalog);
  spec.chain = handle::LineageForExport(ctx, finder, OpenSnapshot(ctx, client, name_or_path),
                                        options.with_parents, std::nullopt)
                   .snapshots;
  spec.ancestors = AncestorsOf(finder, spec.chain.front().artifact);
  registry::Origins origins(client.home.RegistriesFile(), log);
  return registry::PushSnapshots(ctx, spec, origins);
}

}  // namespace msb::ops
