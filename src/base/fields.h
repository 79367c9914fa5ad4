// SPDX-License-Identifier: Apache-2.0
//
// Reads the fields of JSON documents strictly. Errors are thrown as std::invalid_argument, with a
// message that names the field by its path.

#ifndef MSB_SRC_BASE_FIELDS_H_
#define MSB_SRC_BASE_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/disk.h"
#include "src/base/json.h"

namespace msb::base {

// The largest integer that every JSON reader represents exactly, 2^53 - 1.
inline constexpr std::uint64_t kMaxJsonInteger = (std::uint64_t{1} << 53) - 1;

// Throws std::invalid_argument with the message "FIELD PROBLEM".
[[noreturn]] void Malformed(std::string_view field, std::string_view problem);

// Throws std::invalid_argument with the message "FIELD must be EXPECTED, but is TYPE". TYPE is the
// JSON type of found, such as "an array" or "null".
[[noreturn]] void MalformedType(std::string_view field, std::string_view expected,
                                const Json& found);

// A Fields reads the fields of one JSON object. Each function that reads a field throws if the
// field is absent or does not have the expected type or form.
class Fields {
 public:
  // Whether to refuse or to ignore fields that are neither required nor optional.
  enum class Others { kRefuse, kIgnore };

  // Throws if object is not a JSON object, lacks a required field or, with Others::kRefuse, has a
  // field that is neither required nor optional. path is the path of the object in the document, or
  // "" for the document itself. object must outlive the Fields.
  Fields(const Json& object, std::string path, std::initializer_list<std::string_view> required,
         Others others, std::initializer_list<std::string_view> optional = {});

  // Returns the path of a field: "state.upper" for the field "upper" of the object at "state".
  std::string PathOf(std::string_view field) const;

  bool Has(std::string_view field) const;
  const Json& At(std::string_view field) const;
  bool IsNull(std::string_view field) const;
  // Returns a string, which must not be empty.
  std::string Text(std::string_view field) const;
  // Returns a string, which may be empty.
  std::string AnyText(std::string_view field) const;
  // Returns a string, or nullopt if the field is null.
  std::optional<std::string> OptionalText(std::string_view field) const;
  // Returns an integer from 0 to kMaxJsonInteger.
  std::uint64_t Size(std::string_view field) const;
  // Throws unless the field has this value, of the same JSON type.
  void Expect(std::string_view field, const Json& value) const;
  // Returns a list of strings, which may be empty.
  std::vector<std::string> TextList(std::string_view field) const;
  std::map<std::string, std::string> TextMap(std::string_view field) const;
  DiskFormat Format(std::string_view field) const;
  // Returns a digest: algorithm + ":" + 64 lower-case hex digits.
  std::string Digest(std::string_view field, std::string_view algorithm) const;
  // Works like Digest, but returns nullopt if the field is null.
  std::optional<std::string> OptionalDigest(std::string_view field,
                                            std::string_view algorithm) const;

 private:
  const Json& object_;
  std::string path_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_FIELDS_H_
