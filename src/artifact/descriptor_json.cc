// SPDX-License-Identifier: Apache-2.0
//
// Reads and writes snapshot.json, the descriptor of releases 0.6.7 to 0.6.18.

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/artifact/manifest_json.h"
#include "src/base/fields.h"
#include "src/base/text.h"

namespace msb::artifact {
namespace {

using base::AppendJsonString;
using base::Fields;
using base::Json;
using base::Malformed;
using base::MalformedType;
using Others = Fields::Others;

void ReadFileState(const Json& value, Manifest& manifest) {
  const Fields state(value, "state", {"kind", "format", "fstype", "upper"}, Others::kRefuse);
  const Fields upper(state.At("upper"), "state.upper", {"file", "size_bytes", "integrity"},
                     Others::kRefuse);
  if (manifest.scope != "disk") {
    Malformed("state.kind", "is file, so scope must be disk, but is " + manifest.scope);
  }
  Layer layer = ReadUpperFile(upper, state.Format("format"));
  if (!upper.IsNull("integrity")) {
    layer.integrity =
        ReadIntegrity(upper.At("integrity"), "state.upper.integrity", layer.file_bytes);
  }
  manifest.fstype = state.Text("fstype");
  manifest.size_bytes = *layer.file_bytes;
  manifest.layers = {std::move(layer)};
}

void ReadDescriptorState(const Json& value, Manifest& manifest) {
  const Fields any(value, "state", {"kind"}, Others::kIgnore);
  manifest.state_kind = any.Text("kind");
  if (manifest.state_kind == "file") return ReadFileState(value, manifest);
  if (manifest.state_kind != "checkpoint") {
    Malformed("state.kind", fmt::format("must be file or checkpoint, but is '{}'",
                                        base::Quoted(manifest.state_kind)));
  }
  const Fields state(value, "state", {"kind", "checkpoint_id", "manifest"}, Others::kRefuse);
  manifest.checkpoint_id = state.Text("checkpoint_id");
  manifest.checkpoint_manifest = state.Digest("manifest", "sha256");
}

std::vector<std::string> ReadRequired(const Fields& root) {
  const Json& extensions = root.At("extensions");
  std::vector<std::string> required = root.TextList("requires");
  for (const std::string& key : required) {
    if (extensions.contains(key)) continue;
    Malformed("requires", fmt::format("lists '{}', which extensions lacks", base::Quoted(key)));
  }
  const auto not_less = [](const auto& a, const auto& b) { return !(a < b); };
  if (std::adjacent_find(required.begin(), required.end(), not_less) != required.end()) {
    Malformed("requires", "must be sorted and have no duplicates");
  }
  return required;
}

void AppendState(std::string& out, const Manifest& manifest) {
  if (manifest.state_kind == "checkpoint") {
    out += R"({"kind":"checkpoint","checkpoint_id":)";
    AppendJsonString(out, manifest.checkpoint_id);
    out += R"(,"manifest":)";
    base::AppendJsonOptional(out, manifest.checkpoint_manifest);
    out += '}';
    return;
  }
  const Layer& upper = manifest.layers.at(0);
  out += fmt::format(R"({{"kind":"file","format":"{}","fstype":)", ToString(upper.format));
  AppendJsonString(out, manifest.fstype);
  out += R"(,"upper":{"file":)";
  AppendJsonString(out, upper.file);
  out += fmt::format(R"(,"size_bytes":{},"integrity":)", manifest.size_bytes);
  AppendIntegrity(out, upper.integrity, manifest.size_bytes);
  out += "}}";
}

}  // namespace

Manifest ReadDescriptorJson(const Json& document) {
  const Fields root(document, "",
                    {"schema", "artifact", "scope", "created_at", "parent", "image",
                     "source_sandbox", "state", "labels", "extensions", "requires"},
                    Others::kRefuse);
  root.Expect("schema", 1U);
  root.Expect("artifact", "snapshot");
  const Fields image(root.At("image"), "image", {"ref", "manifest_digest"}, Others::kRefuse);
  Manifest manifest;
  manifest.form = ManifestForm::kDescriptor;
  manifest.scope = root.Text("scope");
  if (manifest.scope != "disk" && manifest.scope != "resumable") {
    Malformed("scope",
              fmt::format("must be disk or resumable, but is '{}'", base::Quoted(manifest.scope)));
  }
  manifest.created_at = root.Text("created_at");
  manifest.parent = root.OptionalDigest("parent", "sha256");
  manifest.image = {image.Text("ref"), image.Digest("manifest_digest", "sha256")};
  manifest.source_sandbox = root.OptionalText("source_sandbox");
  ReadDescriptorState(root.At("state"), manifest);
  manifest.labels = root.TextMap("labels");
  const Json& extensions = root.At("extensions");
  if (!extensions.is_object()) MalformedType("extensions", "an object", extensions);
  manifest.extensions.clear();
  base::AppendCanonicalJson(manifest.extensions, extensions);
  manifest.required = ReadRequired(root);
  return manifest;
}

std::string WriteDescriptorJson(const Manifest& manifest) {
  std::string out = fmt::format(R"({{"schema":1,"artifact":"snapshot","scope":"{}","created_at":)",
                                manifest.scope);
  AppendJsonString(out, manifest.created_at);
  out += R"(,"parent":)";
  base::AppendJsonOptional(out, manifest.parent);
  out += R"(,"image":)";
  AppendImage(out, manifest.image);
  out += R"(,"source_sandbox":)";
  base::AppendJsonOptional(out, manifest.source_sandbox);
  out += R"(,"state":)";
  AppendState(out, manifest);
  out += R"(,"labels":)";
  base::AppendJsonObject(out, manifest.labels);
  out += fmt::format(R"(,"extensions":{},"requires":[)", manifest.extensions);
  for (const char* separator = ""; const std::string& key : manifest.required) {
    out += separator;
    AppendJsonString(out, key);
    separator = ",";
  }
  out += "]}";
  return out;
}

}  // namespace msb::artifact
