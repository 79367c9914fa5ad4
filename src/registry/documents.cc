// SPDX-License-Identifier: Apache-2.0

#include "src/registry/documents.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/base/fields.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::registry {
namespace {

using artifact::ManifestForm;
using base::Fields;
using base::Json;
using base::Malformed;
using base::Throw;

constexpr std::string_view kSnapshotType = "application/vnd.msb.snapshot.v1";
constexpr std::string_view kImageFileType = "application/vnd.msb.image-file.v1";
constexpr std::string_view kTableMediaType = "application/vnd.msb.snapshot.chunks.v1+json";
constexpr std::string_view kChunkMediaType = "application/vnd.msb.snapshot.chunk.v1+zstd";
// The media types of an artifact's manifest.json and snapshot.json.
constexpr std::string_view kManifestFileType = "application/vnd.msb.snapshot.manifest.v1+json";
constexpr std::string_view kDescriptorFileType = "application/vnd.msb.snapshot.descriptor.v1+json";

std::string_view TypeOf(Content content) {
  return content == Content::kSnapshot ? kSnapshotType : kImageFileType;
}

std::string_view ManifestFileType(ManifestForm form) {
  return form == ManifestForm::kManifest ? kManifestFileType : kDescriptorFileType;
}

void AppendDescriptor(std::string& out, std::string_view media_type, const BlobDescriptor& blob,
                      std::string_view artifact_type = {}) {
  out += fmt::format(R"({{"mediaType":"{}","digest":"{}","size":{})", media_type, blob.digest,
                     blob.size);
  if (!artifact_type.empty()) out += fmt::format(R"(,"artifactType":"{}")", artifact_type);
  out += '}';
}

void AppendAnnotations(std::string& out, const Annotations& annotations) {
  if (annotations.empty()) return;
  out += R"(,"annotations":)";
  base::AppendJsonObject(out, annotations);
}

// A descriptor of an OCI document.
struct Described {
  std::string media_type;
  std::string artifact_type;  // Empty if it is absent.
  BlobDescriptor blob;
};

Described ReadDescriptor(const Json& value, const std::string& path) {
  const Fields fields(value, path, {"mediaType", "digest", "size"}, Fields::Others::kIgnore);
  return {.media_type = fields.Text("mediaType"),
          .artifact_type = fields.Has("artifactType") ? fields.AnyText("artifactType") : "",
          .blob = {fields.Digest("digest", "sha256"), fields.Size("size")}};
}

BlobDescriptor ReadDescriptor(const Json& value, const std::string& path,
                              std::string_view media_type) {
  Described found = ReadDescriptor(value, path);
  if (found.media_type == media_type) return std::move(found.blob);
  Malformed(path + ".mediaType",
            fmt::format("must be '{}', but is '{}'", media_type, base::Quoted(found.media_type)));
}

const Json& ArrayOf(const Fields& fields, std::string_view field) {
  const Json& array = fields.At(field);
  if (!array.is_array()) base::MalformedType(fields.PathOf(field), "an array", array);
  if (array.empty()) Malformed(fields.PathOf(field), "is empty");
  return array;
}

// Checks that the document has this media type, if it names one, and the schema version 2.
void CheckMediaType(const Fields& fields, std::string_view media_type) {
  fields.Expect("schemaVersion", std::uint64_t{2});
  if (fields.Has("mediaType")) fields.Expect("mediaType", std::string(media_type));
}

std::string ArtifactTypeOf(const Fields& fields) {
  return fields.Has("artifactType") ? fields.AnyText("artifactType") : "";
}

[[noreturn]] void RefuseOther(std::string_view origin, std::string_view found) {
  Throw(ErrorKind::kUnsupportedOperation,
        "{} is not a snapshot, but '{}'; name a repository to which a snapshot was pushed", origin,
        base::Quoted(found));
}

// Returns the media type that the registry reports, in lower case and without parameters.
std::string MediaTypeOf(const RemoteDocument& document) {
  const std::string_view type = document.media_type;
  const std::size_t end = type.find_first_of("; \t");
  return base::LowerCase(type.substr(0, end));
}

// Refuses a document whose media type the registry does not report, unless its mediaType field is
// media_type.
void RequireMediaType(const Json& json, std::string_view media_type, std::string_view origin) {
  const auto found = json.is_object() ? json.find("mediaType") : json.end();
  if (found != json.end() && found->is_string() && found->get<std::string>() == media_type) return;
  RefuseOther(origin, "a document without a media type");
}

// Calls parse with the document, which must have the media type, and names it in the errors.
template <typename Parse>
auto ParseDocument(const RemoteDocument& document, std::string_view media_type,
                   std::string_view origin, const Parse& parse) {
  const std::string reported = MediaTypeOf(document);
  if (!reported.empty() && reported != media_type) RefuseOther(origin, document.media_type);
  try {
    const Json json = base::ParseJson(document.bytes);
    if (reported.empty()) RequireMediaType(json, media_type, origin);
    return parse(json);
  } catch (const std::invalid_argument& e) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} is malformed: {}; push the snapshot again", origin,
          e.what());
  }
}

void ReadLayers(const Json& layers, FileManifest& manifest) {
  std::size_t first_chunk = 0;
  if (manifest.content == Content::kSnapshot) {
    Described first = ReadDescriptor(layers[0], "layers[0]");
    if (first.media_type == kManifestFileType) {
      manifest.form = ManifestForm::kManifest;
    } else if (first.media_type != kDescriptorFileType) {
      Malformed("layers[0].mediaType",
                fmt::format("must be that of a snapshot's manifest, but is '{}'",
                            base::Quoted(first.media_type)));
    }
    manifest.manifest = std::move(first.blob);
    first_chunk = 1;
  }
  for (std::size_t i = first_chunk; i < layers.size(); ++i) {
    manifest.chunks.push_back(
        ReadDescriptor(layers[i], fmt::format("layers[{}]", i), kChunkMediaType));
  }
}

// Returns true if the index has the annotation of every snapshot.
bool IsAnnotatedSnapshot(const Fields& fields) {
  if (!fields.Has("annotations")) return false;
  const Json& annotations = fields.At("annotations");
  return annotations.is_object() && annotations.contains(kDigestAnnotation);
}

IndexEntry ReadEntry(const Json& value, const std::string& path) {
  Described found = ReadDescriptor(value, path);
  IndexEntry entry{.content = {}, .manifest = std::move(found.blob)};
  if (found.artifact_type == kSnapshotType) entry.content = Content::kSnapshot;
  if (found.artifact_type == kImageFileType) entry.content = Content::kImageFile;
  if (found.media_type != kManifestMediaType || (!entry.content && !found.artifact_type.empty())) {
    Malformed(path, "must be the manifest of a snapshot or of a file of an image");
  }
  return entry;
}

constexpr std::string_view kSnapshotTagPrefix = "snapshot-";
constexpr std::string_view kImageTagPrefix = "image-";

}  // namespace

std::string SnapshotTag(const base::Digest& snapshot) {
  return std::string(kSnapshotTagPrefix) + snapshot.hex();
}

std::string ImageTag(const base::Digest& manifest) {
  return std::string(kImageTagPrefix) + manifest.hex();
}

bool IsReservedTag(std::string_view tag) {
  for (const std::string_view prefix : {kSnapshotTagPrefix, kImageTagPrefix}) {
    if (!tag.starts_with(prefix)) continue;
    return base::IsDigest(fmt::format("sha256:{}", tag.substr(prefix.size())), "sha256");
  }
  return false;
}

std::string WriteFileManifest(const FileManifest& manifest) {
  std::string out =
      fmt::format(R"({{"schemaVersion":2,"mediaType":"{}","artifactType":"{}","config":)",
                  kManifestMediaType, TypeOf(manifest.content));
  AppendDescriptor(out, kTableMediaType, manifest.table);
  out += R"(,"layers":[)";
  if (manifest.content == Content::kSnapshot) {
    AppendDescriptor(out, ManifestFileType(manifest.form), manifest.manifest);
  }
  for (const BlobDescriptor& chunk : manifest.chunks) {
    if (out.back() == '}') out += ',';
    AppendDescriptor(out, kChunkMediaType, chunk);
  }
  out += ']';
  AppendAnnotations(out, manifest.annotations);
  return out + '}';
}

std::string WriteSnapshotIndex(const SnapshotIndex& index) {
  std::string out =
      fmt::format(R"({{"schemaVersion":2,"mediaType":"{}","artifactType":"{}","manifests":[)",
                  kIndexMediaType, kSnapshotType);
  for (const IndexEntry& entry : index.entries) {
    if (out.back() == '}') out += ',';
    AppendDescriptor(out, kManifestMediaType, entry.manifest,
                     entry.content ? TypeOf(*entry.content) : "");
  }
  out += ']';
  AppendAnnotations(out, index.annotations);
  return out + '}';
}

FileManifest ParseFileManifest(const RemoteDocument& document, std::string_view origin) {
  return ParseDocument(document, kManifestMediaType, origin, [&](const Json& json) {
    const Fields fields(json, "", {"schemaVersion", "config", "layers"}, Fields::Others::kIgnore);
    CheckMediaType(fields, kManifestMediaType);
    const std::string type = ArtifactTypeOf(fields);
    if (type != kSnapshotType && type != kImageFileType) RefuseOther(origin, type);
    FileManifest manifest{.content =
                              type == kSnapshotType ? Content::kSnapshot : Content::kImageFile};
    manifest.table = ReadDescriptor(fields.At("config"), "config", kTableMediaType);
    ReadLayers(ArrayOf(fields, "layers"), manifest);
    return manifest;
  });
}

SnapshotIndex ParseSnapshotIndex(const RemoteDocument& document, std::string_view origin) {
  return ParseDocument(document, kIndexMediaType, origin, [&](const Json& json) {
    const Fields fields(json, "", {"schemaVersion", "manifests"}, Fields::Others::kIgnore);
    CheckMediaType(fields, kIndexMediaType);
    const std::string type = ArtifactTypeOf(fields);
    if (type != kSnapshotType && (!type.empty() || !IsAnnotatedSnapshot(fields))) {
      RefuseOther(origin, type.empty() ? "an image index" : type);
    }
    SnapshotIndex index;
    for (const Json& value : ArrayOf(fields, "manifests")) {
      const std::string path = fmt::format("manifests[{}]", index.entries.size());
      IndexEntry entry = ReadEntry(value, path);
      if (entry.content == Content::kSnapshot && !index.entries.empty() &&
          index.entries.back().content == Content::kImageFile) {
        Malformed(path, "is a snapshot, which must precede the files of images");
      }
      index.entries.push_back(std::move(entry));
    }
    if (index.entries[0].content == Content::kImageFile) {
      Malformed("manifests[0]", "must be a snapshot");
    }
    return index;
  });
}

}  // namespace msb::registry
