// SPDX-License-Identifier: Apache-2.0
//
// Reads snapshot.json as releases 0.7.x write it; this library does not write it. The identity of
// such a snapshot is the hash of the file's bytes, so unknown fields, which a later release may
// add, are ignored.

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "src/artifact/manifest_json.h"
#include "src/base/fields.h"
#include "src/base/text.h"

namespace msb::artifact {
namespace {

using base::Fields;
using base::Json;
using base::Malformed;
using base::MalformedType;
using Others = Fields::Others;

// The longest id of a snapshot or layer, in bytes.
constexpr std::size_t kMaxIdBytes = 128;

struct NamedLayer {
  std::string id;
  std::uint64_t virtual_size = 0;
  std::optional<std::string> backing;
  Layer layer;
};

// Reads an id. It must be a plain identifier because it becomes part of a path.
std::string ReadId(const Fields& fields, std::string_view field) {
  std::string id = fields.Text(field);
  const bool plain = std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return c < 0x80 && (std::isalnum(c) != 0 || c == '_' || c == '-');
  });
  if (!plain || id.size() > kMaxIdBytes) {
    Malformed(fields.PathOf(field),
              fmt::format("must be at most {} letters, digits, '_' or '-', but is '{}'",
                          kMaxIdBytes, base::Quoted(id)));
  }
  return id;
}

std::optional<std::string> ReadOptionalId(const Fields& fields, std::string_view field) {
  if (fields.IsNull(field)) return std::nullopt;
  return ReadId(fields, field);
}

NamedLayer ReadLayer(const Json& value) {
  const Fields fields(value, "state.layers[]",
                      {"backing", "format", "layer_id", "payload", "virtual_size"},
                      Others::kIgnore);
  const Fields payload(fields.At("payload"), "state.layers[].payload", {"file_kind", "integrity"},
                       Others::kIgnore);
  payload.Expect("file_kind", "regular");
  NamedLayer named{.id = ReadId(fields, "layer_id"),
                   .virtual_size = fields.Size("virtual_size"),
                   .backing = ReadOptionalId(fields, "backing"),
                   .layer = {.file = {},
                             .format = fields.Format("format"),
                             .file_bytes = std::nullopt,
                             .integrity = std::nullopt}};
  named.layer.file = fmt::format("layers/{}.{}", named.id, ToString(named.layer.format));
  if (named.layer.format == DiskFormat::kRaw) named.layer.file_bytes = named.virtual_size;
  if (!payload.IsNull("integrity")) {
    named.layer.integrity =
        ReadIntegrity(payload.At("integrity"), payload.PathOf("integrity"), named.layer.file_bytes);
  }
  return named;
}

// Returns the layers, the head first, each backed by the next.
std::vector<NamedLayer> ReadChain(const Fields& state) {
  const Json& list = state.At("layers");
  if (!list.is_array()) MalformedType("state.layers", "an array", list);
  std::map<std::string, NamedLayer> layers;
  for (const Json& value : list) {
    NamedLayer layer = ReadLayer(value);
    const std::string id = layer.id;
    if (!layers.emplace(id, std::move(layer)).second) {
      Malformed("state.layers", fmt::format("has the layer '{}' twice", id));
    }
  }
  std::vector<NamedLayer> chain;
  for (std::optional<std::string> id = ReadId(state, "head"); id;) {
    auto node = layers.extract(*id);
    if (node.empty()) {
      Malformed("state.layers",
                fmt::format("must be a chain, but the layer '{}' is missing or in a loop", *id));
    }
    id = node.mapped().backing;
    chain.push_back(std::move(node.mapped()));
  }
  if (!layers.empty()) {
    Malformed("state.layers", fmt::format("has the layer '{}', which does not back the head",
                                          layers.begin()->first));
  }
  return chain;
}

void ReadLayeredState(const Json& value, Manifest& manifest) {
  const Fields any(value, "state", {"kind"}, Others::kIgnore);
  if (any.Text("kind") != "file") {
    manifest.state_kind = "checkpoint";
    return;
  }
  const Fields state(value, "state",
                     {"disk_format", "filesystem", "head", "layers", "virtual_size"},
                     Others::kIgnore);
  manifest.fstype = state.Text("filesystem");
  manifest.size_bytes = state.Size("virtual_size");
  for (NamedLayer& named : ReadChain(state)) {
    const bool is_head = manifest.layers.empty();
    if (is_head && (named.layer.format != state.Format("disk_format") ||
                    named.virtual_size != manifest.size_bytes)) {
      Malformed("state", "must have the disk_format and virtual_size of its head layer");
    }
    manifest.layers.push_back(std::move(named.layer));
  }
}

}  // namespace

Manifest ReadLayeredJson(const Json& document) {
  const Fields root(
      document, "",
      {"capture", "image", "parent", "requires", "schema", "scope", "snapshot_id", "state"},
      Others::kIgnore);
  root.Expect("schema", "microsandbox.snapshot/1");
  const Fields capture(root.At("capture"), "capture", {"created_at", "source_lineage"},
                       Others::kIgnore, {"consistency"});
  const Fields image(root.At("image"), "image", {"reference", "manifest_digest"}, Others::kIgnore);
  Manifest manifest;
  manifest.form = ManifestForm::kLayered;
  manifest.snapshot_id = ReadId(root, "snapshot_id");
  manifest.created_at = capture.Text("created_at");
  if (capture.Has("consistency")) {
    const Json& consistency = capture.At("consistency");
    if (consistency.is_string()) manifest.captured = consistency.get<std::string>();
  }
  manifest.parent = ReadOptionalId(root, "parent");
  manifest.image = {image.Text("reference"), image.Digest("manifest_digest", "sha256")};
  manifest.source_sandbox = capture.OptionalText("source_lineage");
  // The index of 0.7 names the scope of a plain snapshot "disk", as earlier ones do.
  manifest.scope = root.Text("scope") == "file" ? "disk" : "resumable";
  ReadLayeredState(root.At("state"), manifest);
  manifest.required = root.TextList("requires");
  return manifest;
}

}  // namespace msb::artifact
