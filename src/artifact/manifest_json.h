// The JSON of each generation. Readers throw std::invalid_argument and leave digest and created to
// their caller; writers give the canonical bytes.

#ifndef MSB_SRC_ARTIFACT_MANIFEST_JSON_H_
#define MSB_SRC_ARTIFACT_MANIFEST_JSON_H_

#include <string>

#include "src/artifact/manifest.h"
#include "src/base/json.h"

namespace msb::artifact {

Manifest ReadManifestJson(const base::Json& document);
std::string WriteManifestJson(const Manifest& manifest);

Manifest ReadDescriptorJson(const base::Json& document);
std::string WriteDescriptorJson(const Manifest& manifest);

Manifest ReadLayeredJson(const base::Json& document);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_MANIFEST_JSON_H_
