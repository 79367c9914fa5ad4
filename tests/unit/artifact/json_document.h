// SPDX-License-Identifier: Apache-2.0
//
// A JSON document of which tests make changed copies, to find out which ones are refused.

#ifndef MSB_TESTS_UNIT_ARTIFACT_JSON_DOCUMENT_H_
#define MSB_TESTS_UNIT_ARTIFACT_JSON_DOCUMENT_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "msb/error.h"

namespace msb::artifact {

// A JsonDocument represents the text of a manifest that a release wrote.
class JsonDocument {
 public:
  // Parses a manifest. Throws kSnapshotIntegrity, with the name of the file, if it is refused.
  using Parser = std::function<void(std::string_view text, const std::string& file)>;

  JsonDocument(std::string_view text, std::string file, Parser parser)
      : text_(text), file_(std::move(file)), parser_(std::move(parser)) {}

  // Returns the document with this value at pointer, such as "/image/ref".
  std::string With(const std::string& pointer, const nlohmann::json& value) const {
    nlohmann::json document = nlohmann::json::parse(text_);
    document[nlohmann::json::json_pointer(pointer)] = value;
    return document.dump();
  }

  // Returns the document without the field at pointer.
  std::string Without(const std::string& pointer) const {
    nlohmann::json document = nlohmann::json::parse(text_);
    const nlohmann::json::json_pointer field(pointer);
    document.at(field.parent_pointer()).erase(field.back());
    return document.dump();
  }

  // Returns the text with the first occurrence of from replaced by to. Throws std::logic_error if
  // there is none.
  std::string Replaced(std::string_view from, std::string_view to) const {
    const std::size_t at = text_.find(from);
    if (at == std::string::npos) throw std::logic_error("nothing to replace");
    return std::string(text_).replace(at, from.size(), to);
  }

  // Expects text to be refused with an error that names the file, and returns the message.
  std::string RefusalOf(std::string_view text) const {
    try {
      parser_(text, file_);
    } catch (const Error& e) {
      EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(ErrorKind::kSnapshotIntegrity)) << e.what();
      EXPECT_THAT(e.what(), testing::HasSubstr(file_));
      return e.what();
    }
    ADD_FAILURE() << "accepted: " << text.substr(0, 2000);
    return {};
  }

  // Converts a pointer such as "/image/ref" to the spelling in messages, "image.ref".
  static std::string Spelled(std::string pointer) {
    pointer.erase(0, 1);
    std::replace(pointer.begin(), pointer.end(), '/', '.');
    return pointer;
  }

 private:
  const std::string text_;
  const std::string file_;
  const Parser parser_;
};

}  // namespace msb::artifact

#endif  // MSB_TESTS_UNIT_ARTIFACT_JSON_DOCUMENT_H_
