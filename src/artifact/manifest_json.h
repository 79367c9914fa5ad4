// SPDX-License-Identifier: Apache-2.0
//
// Reads and writes the JSON of each generation. Readers throw std::invalid_argument if the document
// is malformed, and do not set digest and created, which the caller must set. Writers return the
// canonical bytes.

#ifndef MSB_SRC_ARTIFACT_MANIFEST_JSON_H_
#define MSB_SRC_ARTIFACT_MANIFEST_JSON_H_

#include <cstdint>
#include <optional>
#include <string>

#include "src/artifact/manifest.h"
#include "src/base/fields.h"
#include "src/base/json.h"

namespace msb::artifact {

Manifest ReadManifestJson(const base::Json& document);
std::string WriteManifestJson(const Manifest& manifest);

Manifest ReadDescriptorJson(const base::Json& document);
std::string WriteDescriptorJson(const Manifest& manifest);

Manifest ReadLayeredJson(const base::Json& document);

// Reads the name and the size of the upper of a manifest or a descriptor. upper is the object that
// describes it.
Layer ReadUpperFile(const base::Fields& upper, DiskFormat format);

// Appends the image object of a manifest or a descriptor.
void AppendImage(std::string& out, const Image& image);

// Reads the integrity object of the upper of a descriptor, of a layer, or of an archive entry. If
// the size of the file is recorded elsewhere, size must be that size in bytes. Otherwise, sets size
// to the size that the object records, if any.
Integrity ReadIntegrity(const base::Json& value, const std::string& path,
                        std::optional<std::uint64_t>& size);
// Appends the same object, or null if there is no integrity.
void AppendIntegrity(std::string& out, const std::optional<Integrity>& integrity,
                     std::uint64_t size);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_MANIFEST_JSON_H_
