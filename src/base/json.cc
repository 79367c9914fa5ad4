// SPDX-License-Identifier: Apache-2.0

#include "src/base/json.h"

#include <fmt/core.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <vector>

#include "src/base/text.h"

namespace msb::base {
namespace {

constexpr std::size_t kMaxDepth = 127;

// Builds a Json from parser events: only there can a repeated key be detected.
class DocumentBuilder : public nlohmann::json_sax<Json> {
 public:
  DocumentBuilder(Json& root, std::size_t max_values) : root_(root), max_values_(max_values) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  // The parser reports negative integers here, and "-0", which the runtimes read as a float.
  bool number_integer(number_integer_t value) override {
    return value == 0 ? Add(-0.0) : Add(value);
  }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return Open(Json::object()); }
  bool start_array(std::size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (open_.back()->contains(name)) {
      throw std::invalid_argument(fmt::format("duplicate object key '{}'", Quoted(name)));
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& e) override {
    throw std::invalid_argument(
        fmt::format("invalid JSON at byte {}: {}", position, Quoted(e.what())));
  }

 private:
  Json* Place(Json value) {
    if (++values_ > max_values_) {
      throw std::invalid_argument(fmt::format("it has more than {} values", max_values_));
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  bool Add(Json value) {
    Place(std::move(value));
    return true;
  }

  bool Open(Json empty) {
    if (open_.size() == kMaxDepth) {
      throw std::invalid_argument(fmt::format("it is nested deeper than {} levels", kMaxDepth));
    }
    open_.push_back(Place(std::move(empty)));
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  Json& root_;
  const std::size_t max_values_;
  std::size_t values_ = 0;
  std::vector<Json*> open_;
  std::string key_;
};

// Appends the shortest digits that read back as value: fixed notation from 1e-5 up to below 1e16,
// else scientific with a signed exponent of at least one digit ("1e-7", "1.5e+20").
void AppendFloat(std::string& out, double value) {
  std::array<char, 64> buffer;
  const double magnitude = std::fabs(value);
  const bool fixed = magnitude == 0 || (magnitude >= 1e-5 && magnitude < 1e16);
  const auto result =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                    fixed ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer.data(), result.ptr);
  if (fixed) {
    if (text.find('.') == std::string::npos) text += ".0";
  } else if (const std::size_t e = text.find('e'); text[e + 2] == '0') {
    text.erase(e + 2, 1);  // std::to_chars writes at least two digits of exponent.
  }
  out += text;
}

}  // namespace

Json ParseJson(std::string_view text, std::size_t max_values) {
  // nlohmann's parser skips a byte order mark, which JSON does not allow.
  if (text.starts_with("\xef\xbb\xbf")) {
    throw std::invalid_argument("it begins with a byte order mark");
  }
  // It treats a NUL byte as the end of the text, and would ignore the rest.
  if (text.find('\0') != text.npos) throw std::invalid_argument("it contains a NUL byte");
  Json root;
  DocumentBuilder builder(root, max_values);
  Json::sax_parse(text, &builder);
  return root;
}

void AppendJsonString(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void AppendJsonOptional(std::string& out, const std::optional<std::string>& text) {
  if (text) {
    AppendJsonString(out, *text);
  } else {
    out += "null";
  }
}

void AppendJsonObject(std::string& out, const std::map<std::string, std::string>& object) {
  out += '{';
  for (const char* separator = ""; const auto& [key, value] : object) {
    out += separator;
    AppendJsonString(out, key);
    out += ':';
    AppendJsonString(out, value);
    separator = ",";
  }
  out += '}';
}

void AppendCanonicalJson(std::string& out, const Json& value) {
  switch (value.type()) {
    case Json::value_t::object: {
      out += '{';
      for (const char* separator = ""; const auto& [key, member] : value.items()) {
        out += separator;
        AppendJsonString(out, key);
        out += ':';
        AppendCanonicalJson(out, member);
        separator = ",";
      }
      out += '}';
      break;
    }
    case Json::value_t::array: {
      out += '[';
      for (const char* separator = ""; const Json& element : value) {
        out += separator;
        AppendCanonicalJson(out, element);
        separator = ",";
      }
      out += ']';
      break;
    }
    case Json::value_t::string:
      AppendJsonString(out, value.get_ref<const std::string&>());
      break;
    case Json::value_t::number_float:
      AppendFloat(out, value.get<double>());
      break;
    default:
      out += value.dump();
  }
}

}  // namespace msb::base
