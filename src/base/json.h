// Reading JSON that nobody vouches for, and writing it in the canonical form of snapshot
// manifests: the form whose SHA-256 is a snapshot's identity.

#ifndef MSB_SRC_BASE_JSON_H_
#define MSB_SRC_BASE_JSON_H_

#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace msb::base {

// Object keys are sorted by their bytes.
using Json = nlohmann::json;

// Each takes some 50 bytes, whatever it takes in the text.
inline constexpr std::size_t kMaxJsonValues = 1 << 18;

// Parses a whole document. Throws std::invalid_argument, saying what is wrong, for what is not
// JSON or not UTF-8, for a key that an object has twice, and for nesting deeper than 127 levels
// (the limit of the runtimes' own parser), and for more than max_values values.
Json ParseJson(std::string_view text, std::size_t max_values = kMaxJsonValues);

// Appends text as a JSON string. Only '"', '\' and control characters below 0x20 are escaped.
void AppendJsonString(std::string& out, std::string_view text);

// Appends a JSON string, or null.
void AppendJsonOptional(std::string& out, const std::optional<std::string>& text);

// Appends {"key":"value",…}.
void AppendJsonObject(std::string& out, const std::map<std::string, std::string>& object);

// Appends any value: compact, keys sorted at every depth, numbers as the runtimes write them.
void AppendCanonicalJson(std::string& out, const Json& value);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_JSON_H_
