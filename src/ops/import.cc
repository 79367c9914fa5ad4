// SPDX-License-Identifier: Apache-2.0

#include "src/ops/import.h"

#include <fmt/format.h>

#include <filesystem>
#include <string_view>
#include <vector>

#include "src/archive/import.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/handle/finder.h"
#include "src/ops/receiver.h"

namespace msb::ops {
namespace {

// Unpacks the archive. Errors name it, whichever part of it they are about.
std::vector<artifact::Artifact> Unpack(const Context& ctx, const std::filesystem::path& archive,
                                       const archive::IntakeSpec& spec) {
  const std::string& path = archive.native();
  try {
    return archive::ImportArchive(ctx, archive, spec);
  } catch (const Error& e) {
    const std::string_view message = e.what();
    if (e.kind() == ErrorKind::kCancelled || message.find(path) != message.npos) throw;
    throw Error(e.kind(), fmt::format("cannot import '{}': {}", base::Quoted(path), message),
                e.os_error());
  }
}

}  // namespace

index::Row ImportSnapshot(const Context& ctx, ClientState& client,
                          const std::filesystem::path& archive, const std::filesystem::path& dest,
                          const SnapshotImportOptions& options) {
  handle::SnapshotFinder finder(ctx, client.catalog);
  const archive::IntakeSpec spec = ReceiverAt(ctx, client, finder, dest, options.name);
  const std::vector<artifact::Artifact> imported =
      Unpack(ctx, base::AbsolutePath(archive.native()), spec);
  // From here on they exist, so neither a cancellation nor the index may make this fail.
  return client.catalog.RecordCopies(ctx, imported);
}

}  // namespace msb::ops
