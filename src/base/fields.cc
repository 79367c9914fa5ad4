// SPDX-License-Identifier: Apache-2.0

#include "src/base/fields.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/base/digest.h"
#include "src/base/text.h"

namespace msb::base {
namespace {

std::string_view JsonTypeOf(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  if (value.is_string()) return "a string";
  if (value.is_boolean()) return "a boolean";
  return value.is_null() ? "null" : "a number";
}

}  // namespace

void Malformed(std::string_view field, std::string_view problem) {
  throw std::invalid_argument(fmt::format("{} {}", field, problem));
}

void MalformedType(std::string_view field, std::string_view expected, const Json& found) {
  Malformed(field, fmt::format("must be {}, but is {}", expected, JsonTypeOf(found)));
}

Fields::Fields(const Json& object, std::string path,
               std::initializer_list<std::string_view> required, Others others,
               std::initializer_list<std::string_view> optional)
    : object_(object), path_(std::move(path)) {
  if (!object.is_object()) {
    MalformedType(path_.empty() ? "the document" : path_, "an object", object);
  }
  for (const std::string_view field : required) {
    if (!object.contains(field)) Malformed(PathOf(field), "is missing");
  }
  if (others == Others::kIgnore) return;
  for (const auto& [key, value] : object.items()) {
    if (std::find(required.begin(), required.end(), key) == required.end() &&
        std::find(optional.begin(), optional.end(), key) == optional.end()) {
      Malformed(PathOf(Quoted(key)), "is an unknown field");
    }
  }
}

std::string Fields::PathOf(std::string_view field) const {
  return path_.empty() ? std::string(field) : fmt::format("{}.{}", path_, field);
}

bool Fields::Has(std::string_view field) const { return object_.contains(field); }

const Json& Fields::At(std::string_view field) const {
  const auto found = object_.find(field);
  if (found == object_.end()) Malformed(PathOf(field), "is missing");
  return *found;
}

bool Fields::IsNull(std::string_view field) const { return At(field).is_null(); }

std::string Fields::AnyText(std::string_view field) const {
  const Json& value = At(field);
  if (!value.is_string()) MalformedType(PathOf(field), "a string", value);
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
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kMaxJsonInteger) {
    Malformed(PathOf(field), fmt::format("must be an integer from 0 to 2^53 - 1, but is {}",
                                         Quoted(value.dump())));
  }
  return value.get<std::uint64_t>();
}

void Fields::Expect(std::string_view field, const Json& value) const {
  const Json& found = At(field);
  // Compare the types too: operator== considers 1.0 and 1 equal.
  if (found.type() != value.type() || found != value) {
    Malformed(PathOf(field), fmt::format("is {}, not {}", Quoted(found.dump()), value.dump()));
  }
}

std::vector<std::string> Fields::TextList(std::string_view field) const {
  const Json& list = At(field);
  if (!list.is_array()) MalformedType(PathOf(field), "an array", list);
  std::vector<std::string> texts;
  for (const Json& element : list) {
    if (!element.is_string()) MalformedType("an element of " + PathOf(field), "a string", element);
    texts.push_back(element.get<std::string>());
  }
  return texts;
}

std::map<std::string, std::string> Fields::TextMap(std::string_view field) const {
  const Json& object = At(field);
  if (!object.is_object()) MalformedType(PathOf(field), "an object", object);
  std::map<std::string, std::string> map;
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) {
      MalformedType(fmt::format("{}['{}']", PathOf(field), Quoted(key)), "a string", value);
    }
    map.emplace(key, value.get<std::string>());
  }
  return map;
}

DiskFormat Fields::Format(std::string_view field) const {
  const std::string format = Text(field);
  if (format == "raw") return DiskFormat::kRaw;
  if (format != "qcow2") {
    Malformed(PathOf(field), fmt::format("must be raw or qcow2, but is '{}'", Quoted(format)));
  }
  return DiskFormat::kQcow2;
}

std::string Fields::Digest(std::string_view field, std::string_view algorithm) const {
  std::string digest = Text(field);
  if (!IsDigest(digest, algorithm)) {
    Malformed(PathOf(field), fmt::format("must be '{}:' and 64 lower-case hex digits, but is '{}'",
                                         algorithm, Quoted(digest)));
  }
  return digest;
}

std::optional<std::string> Fields::OptionalDigest(std::string_view field,
                                                  std::string_view algorithm) const {
  if (IsNull(field)) return std::nullopt;
  return Digest(field, algorithm);
}

}  // namespace msb::base
