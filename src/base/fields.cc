#include "src/base/fields.h"

#include <fmt/core.h>

#include <algorithm>
#include <stdexcept>

#include "src/base/digest.h"
#include "src/base/text.h"

namespace msb::base {

void Malformed(std::string_view field, std::string_view problem) {
  throw std::invalid_argument(fmt::format("{} {}", field, problem));
}

Fields::Fields(const Json& object, std::string path,
               std::initializer_list<std::string_view> required, Others others,
               std::initializer_list<std::string_view> optional)
    : object_(object), path_(std::move(path)) {
  if (!object.is_object()) Malformed(path_.empty() ? "the document" : path_, "is no object");
  for (const std::string_view field : required) {
    if (!object.contains(field)) Malformed(PathOf(field), "is missing");
  }
  if (others == Others::kIgnore) return;
  for (const auto& [key, value] : object.items()) {
    if (std::find(required.begin(), required.end(), key) == required.end() &&
        std::find(optional.begin(), optional.end(), key) == optional.end()) {
      Malformed(PathOf(Quoted(key)), "is no known field");
    }
  }
}

std::string Fields::PathOf(std::string_view field) const {
  return path_.empty() ? std::string(field) : fmt::format("{}.{}", path_, field);
}

const Json& Fields::At(std::string_view field) const {
  const auto found = object_.find(field);
  if (found == object_.end()) Malformed(PathOf(field), "is missing");
  return *found;
}

bool Fields::IsNull(std::string_view field) const { return At(field).is_null(); }

std::string Fields::AnyText(std::string_view field) const {
  const Json& value = At(field);
  if (!value.is_string()) Malformed(PathOf(field), "is no string");
  return value.get<std::string>();
}

std::string Fields::Text(std::string_view field) const {
  std::string text = AnyText(field);
  if (text.empty()) Malformed(PathOf(field), "is empty");
  return text;
}

std::optional<std::string> Fields::OptionalText(std::string_view field) const {
  if (IsNull(field)) return std::nullopt;
  return AnyText(field);
}

std::uint64_t Fields::Size(std::string_view field) const {
  const Json& value = At(field);
  if (!value.is_number_unsigned()) Malformed(PathOf(field), "is no size");
  const auto size = value.get<std::uint64_t>();
  if (size > kMaxJsonInteger) Malformed(PathOf(field), "is beyond 2^53 - 1");
  return size;
}

void Fields::Expect(std::string_view field, const Json& value) const {
  const Json& found = At(field);
  // Not operator==, which takes 1.0 for 1.
  if (found.type() != value.type() || found != value) {
    Malformed(PathOf(field), fmt::format("is {}, not {}", Quoted(found.dump()), value.dump()));
  }
}

std::map<std::string, std::string> Fields::TextMap(std::string_view field) const {
  const Json& object = At(field);
  if (!object.is_object()) Malformed(PathOf(field), "is no object");
  std::map<std::string, std::string> map;
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) Malformed(PathOf(field), "has a value that is no string");
    map.emplace(key, value.get<std::string>());
  }
  return map;
}

DiskFormat Fields::Format(std::string_view field) const {
  const std::string format = Text(field);
  if (format == "raw") return DiskFormat::kRaw;
  if (format != "qcow2") Malformed(PathOf(field), "is neither raw nor qcow2");
  return DiskFormat::kQcow2;
}

std::string Fields::Digest(std::string_view field, std::string_view algorithm) const {
  std::string digest = Text(field);
  if (!IsDigest(digest, algorithm)) {
    Malformed(PathOf(field), fmt::format("is not {}: and 64 lower-case hex digits: {}", algorithm,
                                         Quoted(digest)));
  }
  return digest;
}

std::optional<std::string> Fields::OptionalDigest(std::string_view field,
                                                  std::string_view algorithm) const {
  if (IsNull(field)) return std::nullopt;
  return Digest(field, algorithm);
}

}  // namespace msb::base
