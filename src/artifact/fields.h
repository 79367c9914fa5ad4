// Reading the fields of a manifest strictly. All functions throw std::invalid_argument, naming the
// field by its path.

#ifndef MSB_SRC_ARTIFACT_FIELDS_H_
#define MSB_SRC_ARTIFACT_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "msb/vmm/backend.h"
#include "src/artifact/integrity.h"
#include "src/base/json.h"

namespace msb::artifact {

[[noreturn]] void Malformed(std::string_view field, std::string_view problem);

// A JSON object that must have certain fields.
class Fields {
 public:
  enum class Others { kRefuse, kIgnore };

  // path is where the object is in the document, "" for the document itself. The object must
  // outlive the reader.
  Fields(const base::Json& object, std::string path,
         std::initializer_list<std::string_view> required, Others others);

  // "state.upper" for field "upper" of the object at "state".
  std::string PathOf(std::string_view field) const;

  const base::Json& At(std::string_view field) const;
  bool IsNull(std::string_view field) const;
  // Not empty.
  std::string Text(std::string_view field) const;
  // Empty or not.
  std::string AnyText(std::string_view field) const;
  std::optional<std::string> OptionalText(std::string_view field) const;
  std::uint64_t Size(std::string_view field) const;  // At most kMaxSizeBytes.
  // Throws unless the field is exactly this.
  void Expect(std::string_view field, const base::Json& value) const;
  std::map<std::string, std::string> TextMap(std::string_view field) const;
  DiskFormat Format(std::string_view field) const;
  // algorithm + ":" + 64 lower-case hex digits.
  std::string Digest(std::string_view field, std::string_view algorithm) const;
  std::optional<std::string> OptionalDigest(std::string_view field,
                                            std::string_view algorithm) const;

 private:
  const base::Json& object_;
  std::string path_;
};

// The integrity object of a descriptor or a layer, whose file has size bytes; where that is not
// recorded elsewhere, what the object says becomes size.
Integrity ReadIntegrity(const base::Json& value, const std::string& path,
                        std::optional<std::uint64_t>& size);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_FIELDS_H_
