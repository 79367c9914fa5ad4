// SPDX-License-Identifier: Apache-2.0
//
// Parses untrusted JSON, and writes JSON in the canonical form of snapshot manifests: the form
// whose SHA-256 is a snapshot's identity.

#ifndef MSB_SRC_BASE_JSON_H_
#define MSB_SRC_BASE_JSON_H_

#include <cstddef>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace msb::base {

// Object keys are sorted by their bytes. Sources that use values must include <nlohmann/json.hpp>;
// no header of the library includes it, because compiling it takes longer than most sources.
using Json = nlohmann::json;

// The default limit on the number of values in a document. Each value takes about 50 bytes of
// memory, however short its text is.
inline constexpr std::size_t kMaxJsonValues = 1 << 18;

// Parses a complete document. Throws std::invalid_argument if text is not JSON or not UTF-8, if an
// object has a key twice, if values are nested deeper than 127 levels (the limit of the runtimes'
// own parser), or if there are more than max_values values. The message describes the problem.
Json ParseJson(std::string_view text, std::size_t max_values = kMaxJsonValues);

// Appends text as a JSON string. Only '"', '\' and control characters below 0x20 are escaped.
void AppendJsonString(std::string& out, std::string_view text);

// Appends text as a JSON string, or null if there is no text.
void AppendJsonOptional(std::string& out, const std::optional<std::string>& text);

// Appends a JSON object, {"key":"value",…}.
void AppendJsonObject(std::string& out, const std::map<std::string, std::string>& object);

// Appends a value in canonical form: compact, with keys sorted at every depth, and with numbers as
// the runtimes write them.
void AppendCanonicalJson(std::string& out, const Json& value);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_JSON_H_
