// Reading the fields of JSON documents strictly. All functions throw std::invalid_argument, naming
// the field by its path.

#ifndef MSB_SRC_BASE_FIELDS_H_
#define MSB_SRC_BASE_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "msb/vmm/backend.h"
#include "src/base/json.h"

namespace msb::base {

// The largest integer that every JSON reader represents exactly, 2^53 - 1.
inline constexpr std::uint64_t kMaxJsonInteger = (std::uint64_t{1} << 53) - 1;

[[noreturn]] void Malformed(std::string_view field, std::string_view problem);

// A JSON object that must have certain fields.
class Fields {
 public:
  enum class Others { kRefuse, kIgnore };

  // path is where the object is in the document, "" for the document itself. optional: known fields
  // that may be missing. The object must outlive the reader.
  Fields(const Json& object, std::string path, std::initializer_list<std::string_view> required,
         Others others, std::initializer_list<std::string_view> optional = {});

  // "state.upper" for field "upper" of the object at "state".
  std::string PathOf(std::string_view field) const;

  bool Has(std::string_view field) const { return object_.contains(field); }
  const Json& At(std::string_view field) const;
  bool IsNull(std::string_view field) const;
  // Not empty.
  std::string Text(std::string_view field) const;
  // Empty or not.
  std::string AnyText(std::string_view field) const;
  std::optional<std::string> OptionalText(std::string_view field) const;
  std::uint64_t Size(std::string_view field) const;  // At most kMaxJsonInteger.
  // Throws unless the field is exactly this.
  void Expect(std::string_view field, const Json& value) const;
  std::map<std::string, std::string> TextMap(std::string_view field) const;
  DiskFormat Format(std::string_view field) const;
  // algorithm + ":" + 64 lower-case hex digits.
  std::string Digest(std::string_view field, std::string_view algorithm) const;
  std::optional<std::string> OptionalDigest(std::string_view field,
                                            std::string_view algorithm) const;

 private:
  const Json& object_;
  std::string path_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_FIELDS_H_
