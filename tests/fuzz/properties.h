// SPDX-License-Identifier: Apache-2.0
//
// The requirements of the fuzz targets, and those that the manifest parsers share. A requirement
// that is not met aborts the process, which libFuzzer reports as a finding.

#ifndef MSB_TESTS_FUZZ_PROPERTIES_H_
#define MSB_TESTS_FUZZ_PROPERTIES_H_

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "msb/error.h"
#include "src/artifact/manifest.h"
#include "src/base/digest.h"
#include "src/base/text.h"

namespace msb::fuzz {

inline constexpr std::string_view kOrigin = "input";

inline void Require(bool holds, const char* demand) {
  if (holds) return;
  std::fprintf(stderr, "not so: %s\n", demand);
  std::abort();
}

inline std::string_view AsText(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Returns what read returns, or nothing if it refuses the input with an Error of one of these
// kinds. Other kinds fail a requirement. Other exceptions are not caught, so that the report has
// the stack of the throw.
template <typename Function>
auto Accepted(const Function& read,
              std::initializer_list<ErrorKind> kinds = {ErrorKind::kSnapshotIntegrity})
    -> std::optional<decltype(read())> {
  try {
    return read();
  } catch (const Error& e) {
    const bool expected = std::find(kinds.begin(), kinds.end(), e.kind()) != kinds.end();
    if (!expected) std::fprintf(stderr, "%s\n", e.what());
    Require(expected, "the refusal has an expected kind");
    Require(base::IsUtf8(e.what()), "messages are UTF-8");
    return std::nullopt;
  }
}

inline bool Same(const artifact::Layer& a, const artifact::Layer& b) {
  const auto fields = [](const artifact::Layer& layer) {
    return std::tie(layer.file, layer.format, layer.file_bytes, layer.integrity);
  };
  return fields(a) == fields(b);
}

inline bool Same(const artifact::Manifest& a, const artifact::Manifest& b) {
  const auto fields = [](const artifact::Manifest& m) {
    return std::tie(m.form, m.digest, m.snapshot_id, m.created_at, m.created.seconds,
                    m.created.nanoseconds, m.parent, m.image.ref, m.image.manifest_digest,
                    m.source_sandbox, m.labels, m.scope, m.state_kind, m.fstype, m.size_bytes,
                    m.checkpoint_id, m.checkpoint_manifest, m.extensions, m.required);
  };
  const auto same_layer = [](const auto& x, const auto& y) { return Same(x, y); };
  return fields(a) == fields(b) &&
         std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(), same_layer);
}

// Checks the properties of every manifest that was parsed.
inline void CheckParsed(const artifact::Manifest& manifest, artifact::ManifestForm form) {
  Require(manifest.form == form, "the form is the one asked for");
  Require(base::IsDigest(manifest.digest, "sha256"), "what parses has a digest");
  Require(manifest.layers.empty() == (manifest.state_kind == "checkpoint"),
          "all but checkpoints have a disk");
  for (const artifact::Layer& layer : manifest.layers) {
    std::string_view name = layer.file;
    if (form == artifact::ManifestForm::kLayered) {
      Require(name.starts_with("layers/"), "layers are in layers/");
      name.remove_prefix(std::string_view("layers/").size());
    }
    Require(base::IsPlainFileName(name), "no layer is outside the artifact");
  }
}

// Checks the forms that this library writes: reading a manifest back loses nothing, and its digest
// is that of the canonical bytes.
inline void CheckSealedForm(artifact::ManifestForm form, std::string_view input) {
  const auto read = [form](std::string_view bytes) {
    return Accepted([&] { return artifact::ParseManifest(form, bytes, kOrigin); });
  };
  const auto parsed = read(input);
  if (!parsed) return;
  CheckParsed(*parsed, form);

  artifact::Manifest encoded = *parsed;
  const std::string bytes = artifact::EncodeManifest(encoded);
  Require(Same(encoded, *parsed), "encoding leaves a parsed manifest as it is");
  Require(encoded.digest == base::Sha256Digest(bytes), "the digest is of the canonical bytes");

  auto again = read(bytes);
  Require(again.has_value(), "canonical bytes parse");
  Require(Same(*again, encoded), "canonical bytes parse to the same manifest");
  Require(artifact::EncodeManifest(*again) == bytes, "canonical bytes are encoded to themselves");
}

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_PROPERTIES_H_
