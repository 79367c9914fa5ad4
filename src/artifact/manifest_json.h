// The JSON of each generation. Readers throw std::invalid_argument and leave digest and created to
// their caller; writers give the canonical bytes.

#ifndef MSB_SRC_ARTIFACT_MANIFEST_JSON_H_
#define MSB_SRC_ARTIFACT_MANIFEST_JSON_H_

#include <cstdint>
#include <optional>
#include <string>

#include "src/artifact/manifest.h"
#include "src/base/json.h"

namespace msb::artifact {

Manifest ReadManifestJson(const base::Json& document);
std::string WriteManifestJson(const Manifest& manifest);

Manifest ReadDescriptorJson(const base::Json& document);
std::string WriteDescriptorJson(const Manifest& manifest);

Manifest ReadLayeredJson(const base::Json& document);

// The image object of a manifest or a descriptor.
void AppendImage(std::string& out, const vmm::Image& image);

// The integrity object of a descriptor or a layer, whose file has size bytes; where that is not
// recorded elsewhere, what the object says becomes size.
Integrity ReadIntegrity(const base::Json& value, const std::string& path,
                        std::optional<std::uint64_t>& size);
// The same object, or null.
void AppendIntegrity(std::string& out, const std::optional<Integrity>& integrity,
                     std::uint64_t size);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_MANIFEST_JSON_H_
