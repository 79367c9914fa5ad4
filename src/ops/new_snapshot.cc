// SPDX-License-Identifier: Apache-2.0

#include "src/ops/new_snapshot.h"

#include <cstddef>
#include <map>
#include <optional>
#include <utility>

#include "src/artifact/consistency.h"
#include "src/artifact/output_directory.h"
#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/time.h"
#include "src/handle/dependents.h"
#include "src/ops/sandbox_users.h"

namespace msb::ops {
namespace {

using artifact::ManifestForm;
using base::Throw;

void CheckLabels(const std::map<std::string, std::string>& labels) {
  std::size_t bytes = 0;
  for (const auto& [key, value] : labels) {
    if (!base::IsUtf8(key) || !base::IsUtf8(value)) {
      Throw(ErrorKind::kInvalidArgument, "label '{}' is not UTF-8", base::Quoted(key));
    }
    if (key == artifact::kConsistencyLabel) {
      Throw(ErrorKind::kInvalidArgument, "label '{}' is reserved; choose another name", key);
    }
    bytes += key.size() + value.size();
  }
  // Escaping may turn one byte into six.
  constexpr std::size_t kMaxLabelBytes = artifact::kMaxManifestBytes / 8;
  if (bytes > kMaxLabelBytes) {
    Throw(ErrorKind::kInvalidArgument, "the labels have {} bytes, but at most {} are supported",
          bytes, kMaxLabelBytes);
  }
}

// Returns the integrity algorithm of that form, or nullopt if the options ask for none.
std::optional<std::string> AlgorithmFor(ManifestForm form, const SnapshotCreateOptions& options) {
  if (!options.record_integrity) return std::nullopt;
  return std::string(form == ManifestForm::kManifest ? artifact::kSparseSha256
                                                     : artifact::kFileMerkle);
}

}  // namespace

std::filesystem::path DestinationOf(const SnapshotCreateOptions& options,
                                    const ClientState& client) {
  if (options.name.empty() == options.path.empty()) {
    Throw(ErrorKind::kInvalidArgument, "set exactly one of SnapshotCreateOptions::name and path");
  }
  CheckLabels(options.labels);
  if (!options.path.empty()) {
    std::filesystem::path path = client.home.Respell(base::AbsolutePath(options.path));
    if (!path.has_filename()) {
      Throw(ErrorKind::kInvalidArgument,
            "snapshot path '{}' is invalid: it must end in the name of a directory", path.native());
    }
    // A path in the snapshots directory stands for a name.
    if (path.parent_path() == client.home.snapshots_dir()) {
      artifact::CheckSnapshotName(path.filename());
    }
    artifact::CheckOutputPath(client.home, path);
    return path;
  }
  artifact::CheckSnapshotName(options.name);
  return client.home.snapshots_dir() / options.name;
}

artifact::ManifestForm FormFor(const Context& ctx, ClientState& client) {
  switch (client.config.generation) {
    case Generation::kManifest:
      return ManifestForm::kManifest;
    case Generation::kDescriptor:
      return ManifestForm::kDescriptor;
    case Generation::kAuto:
      break;
  }
  return client.catalog.RuntimeNeedsManifests(ctx) ? ManifestForm::kManifest
                                                   : ManifestForm::kDescriptor;
}

artifact::Manifest NewManifest(ManifestForm form, const SnapshotCreateOptions& options) {
  artifact::Manifest manifest;
  manifest.form = form;
  manifest.created = base::UtcTime::Now();
  manifest.created_at = base::FormatManifestTime(manifest.created);
  manifest.labels = options.labels;
  return manifest;
}

void ApplyOptions(ManifestForm form, const SnapshotCreateOptions& options,
                  artifact::NewArtifact& spec) {
  spec.force = options.force;
  spec.integrity_algorithm = AlgorithmFor(form, options);
}

void ProtectReplaced(const Context& ctx, ClientState& client, artifact::NewArtifact& spec,
                     const std::function<std::string()>& independent_sandbox) {
  if (!spec.force) return;
  spec.confirm_replace = [&ctx, &client, independent_sandbox](const artifact::Artifact& old) {
    const std::string except = independent_sandbox ? independent_sandbox() : std::string();
    handle::CheckReplaceable(ctx, client.catalog, UsersOf(ctx, client), old, except);
  };
  CheckReplacement(spec);
}

void CheckReplacement(const artifact::NewArtifact& spec) {
  if (!spec.force) return;
  if (auto manifest = artifact::ReadManifest(spec.destination)) {
    spec.confirm_replace(
        {.path = spec.destination, .manifest = *std::move(manifest), .member = std::nullopt});
  }
}

}  // namespace msb::ops
