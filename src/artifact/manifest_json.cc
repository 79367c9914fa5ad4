// SPDX-License-Identifier: Apache-2.0
//
// Reads and writes manifest.json, the manifest of releases 0.5.5 to 0.6.6.

#include "src/artifact/manifest_json.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "src/base/fields.h"
#include "src/base/text.h"

namespace msb::artifact {
namespace {

using base::AppendJsonString;
using base::Fields;
using base::Malformed;
using Others = Fields::Others;

// Reads a digest, which in this generation may be any "algorithm:value".
std::string ReadDigest(const Fields& fields, std::string_view field) {
  std::string digest = fields.Text(field);
  const std::size_t colon = digest.find(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == digest.size()) {
    Malformed(fields.PathOf(field),
              fmt::format("must be a digest of the form algorithm:value, but is '{}'",
                          base::Quoted(digest)));
  }
  return digest;
}

void ReadUpper(const Fields& root, Manifest& manifest) {
  const Fields upper(root.At("upper"), "upper", {"file", "size_bytes", "integrity"},
                     Others::kRefuse);
  Layer layer = ReadUpperFile(upper, root.Format("format"));
  if (!upper.IsNull("integrity")) {
    const Fields integrity(upper.At("integrity"), "upper.integrity", {"algorithm", "digest"},
                           Others::kRefuse);
    layer.integrity = {integrity.Text("algorithm"), ReadDigest(integrity, "digest")};
  }
  manifest.fstype = root.Text("fstype");
  manifest.size_bytes = *layer.file_bytes;
  manifest.layers = {std::move(layer)};
}

}  // namespace

Layer ReadUpperFile(const Fields& upper, DiskFormat format) {
  Layer layer{.file = upper.Text("file"),
              .format = format,
              .file_bytes = upper.Size("size_bytes"),
              .integrity = std::nullopt};
  if (!base::IsPlainFileName(layer.file) || IsReservedFile(layer.file)) {
    Malformed(upper.PathOf("file"),
              fmt::format("must be a plain file name that is not reserved, but is '{}'",
                          base::Quoted(layer.file)));
  }
  return layer;
}

void AppendImage(std::string& out, const Image& image) {
  out += R"({"ref":)";
  AppendJsonString(out, image.ref);
  out += R"(,"manifest_digest":)";
  AppendJsonString(out, image.manifest_digest);
  out += '}';
}

Manifest ReadManifestJson(const base::Json& document) {
  const Fields root(document, "",
                    {"schema", "format", "fstype", "image", "parent", "created_at", "labels",
                     "upper", "source_sandbox"},
                    Others::kRefuse);
  root.Expect("schema", 1U);
  const Fields image(root.At("image"), "image", {"ref", "manifest_digest"}, Others::kRefuse);
  Manifest manifest;
  manifest.form = ManifestForm::kManifest;
  manifest.created_at = root.Text("created_at");
  if (!root.IsNull("parent")) manifest.parent = ReadDigest(root, "parent");
  manifest.image = {image.Text("ref"), ReadDigest(image, "manifest_digest")};
  manifest.source_sandbox = root.OptionalText("source_sandbox");
  manifest.labels = root.TextMap("labels");
  ReadUpper(root, manifest);
  return manifest;
}

std::string WriteManifestJson(const Manifest& manifest) {
  const Layer& upper = manifest.layers.at(0);
  std::string out = fmt::format(R"({{"schema":1,"format":"{}","fstype":)", ToString(upper.format));
  AppendJsonString(out, manifest.fstype);
  out += R"(,"image":)";
  AppendImage(out, manifest.image);
  out += R"(,"parent":)";
  base::AppendJsonOptional(out, manifest.parent);
  out += R"(,"created_at":)";
  AppendJsonString(out, manifest.created_at);
  out += R"(,"labels":)";
  base::AppendJsonObject(out, manifest.labels);
  out += R"(,"upper":{"file":)";
  AppendJsonString(out, upper.file);
  out += fmt::format(R"(,"size_bytes":{},"integrity":)", manifest.size_bytes);
  if (upper.integrity) {
    out += R"({"algorithm":)";
    AppendJsonString(out, upper.integrity->algorithm);
    out += R"(,"digest":)";
    AppendJsonString(out, upper.integrity->digest);
    out += '}';
  } else {
    out += "null";
  }
  out += R"(},"source_sandbox":)";
  base::AppendJsonOptional(out, manifest.source_sandbox);
  out += '}';
  return out;
}

}  // namespace msb::artifact
