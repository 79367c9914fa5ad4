// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/manifest.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/artifact/manifest_json.h"
#include "src/base/digest.h"
#include "src/base/fields.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"

namespace msb::artifact {
namespace {

using base::Fields;
using base::Json;

// Calls read with the parsed document. Throws kSnapshotIntegrity if the document is malformed.
template <typename Function>
auto Read(std::string_view bytes, std::string_view origin, const Function& read) {
  try {
    return read(base::ParseJson(bytes));
  } catch (const std::invalid_argument& e) {
    base::Throw(
        ErrorKind::kSnapshotIntegrity,
        "malformed manifest {}: {}; restore it from a backup, or export or push the snapshot again",
        origin, e.what());
  } catch (const Json::exception& e) {
    base::Throw(
        ErrorKind::kSnapshotIntegrity,
        "malformed manifest {}: {}; restore it from a backup, or export or push the snapshot again",
        origin, e.what());
  }
}

std::string Canonical(const Manifest& manifest) {
  return manifest.form == ManifestForm::kManifest ? WriteManifestJson(manifest)
                                                  : WriteDescriptorJson(manifest);
}

Manifest FromJson(ManifestForm form, const Json& document, std::string_view bytes) {
  Manifest manifest = form == ManifestForm::kManifest     ? ReadManifestJson(document)
                      : form == ManifestForm::kDescriptor ? ReadDescriptorJson(document)
                                                          : ReadLayeredJson(document);
  const auto created = base::ParseRfc3339(manifest.created_at);
  if (!created) {
    base::Malformed("created_at", fmt::format("must be an RFC 3339 time, but is '{}'",
                                              base::Quoted(manifest.created_at)));
  }
  manifest.created = *created;
  if (form == ManifestForm::kLayered) {
    manifest.digest = base::Sha256Digest(bytes);
  } else {
    EncodeManifest(manifest);
  }
  return manifest;
}

// Returns manifest. Throws kUnsupportedOperation if its disk has too many layers.
Manifest WithFewLayers(Manifest manifest, std::string_view origin) {
  if (manifest.layers.size() <= kMaxLayers) return manifest;
  base::Throw(ErrorKind::kUnsupportedOperation,
              "{} lists {} disk layers, but at most {} are supported; only the runtime that wrote "
              "the snapshot can use it",
              origin, manifest.layers.size(), kMaxLayers);
}

// Returns the text of one field of a small document with this schema.
std::string ReadOneText(std::string_view bytes, std::string_view origin, const char* schema,
                        std::string_view field) {
  return Read(bytes, origin, [&](const Json& document) {
    const Fields fields(document, "", {"schema", field}, Fields::Others::kIgnore);
    fields.Expect("schema", schema);
    return fields.Text(field);
  });
}

}  // namespace

std::string_view ManifestFileName(ManifestForm form) {
  return form == ManifestForm::kManifest ? "manifest.json" : "snapshot.json";
}

bool IsManifestFile(std::string_view name) {
  return name == ManifestFileName(ManifestForm::kManifest) ||
         name == ManifestFileName(ManifestForm::kDescriptor);
}

bool IsReservedFile(std::string_view name) {
  return IsManifestFile(name) || name == ".manifest.json.legacy" ||
         name == ".snapshot-migration.lock";
}

bool IsBelow(const Manifest& manifest, std::string_view backing_file) {
  return disk::FormatOfDiskFile(backing_file, manifest.image.manifest_digest) ||
         (manifest.parent && disk::FormatOfDiskFile(backing_file, *manifest.parent));
}

Manifest ParseManifest(ManifestForm form, std::string_view bytes, std::string_view origin) {
  return WithFewLayers(
      Read(bytes, origin, [&](const Json& document) { return FromJson(form, document, bytes); }),
      origin);
}

Manifest ParseSnapshotJson(std::string_view bytes, std::string_view origin) {
  const auto read = [&](const Json& document) {
    const Fields any(document, "", {"schema"}, Fields::Others::kIgnore);
    const bool layered = any.At("schema").is_string();
    return FromJson(layered ? ManifestForm::kLayered : ManifestForm::kDescriptor, document, bytes);
  };
  return WithFewLayers(Read(bytes, origin, read), origin);
}

std::string EncodeManifest(Manifest& manifest) {
  if (manifest.form == ManifestForm::kDescriptor) {
    manifest.created_at = base::FormatDescriptorTime(manifest.created);
  }
  std::string bytes = Canonical(manifest);
  manifest.digest = base::Sha256Digest(bytes);
  return bytes;
}

std::map<std::string, std::string> ParseLayeredMetadata(std::string_view bytes,
                                                        std::string_view origin) {
  return Read(bytes, origin, [](const Json& document) {
    const Fields fields(document, "", {"schema", "labels"}, Fields::Others::kIgnore);
    fields.Expect("schema", "microsandbox.snapshot-metadata/1");
    return fields.TextMap("labels");
  });
}

std::string ParseGroupMember(std::string_view bytes, std::string_view origin) {
  return ReadOneText(bytes, origin, "microsandbox.snapshot-group-member/1", "name");
}

std::string ParseGroupHead(std::string_view bytes, std::string_view origin) {
  return ReadOneText(bytes, origin, "microsandbox.snapshot-group/1", "head");
}

}  // namespace msb::artifact
