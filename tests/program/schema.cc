// SPDX-License-Identifier: Apache-2.0

#include "tests/program/schema.h"

#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "tests/support/build.h"
#include "tests/support/support.h"

namespace msb::test {

using valijson::adapters::NlohmannJsonAdapter;

testing::AssertionResult Matches(const nlohmann::json& document, const std::string& definition) {
  nlohmann::json text = nlohmann::json::parse(ReadFile(DocsDir() / "msb-snapshot.schema.json"));
  if (!text["definitions"].contains(definition)) {
    return testing::AssertionFailure() << "the schema has no definition " << definition;
  }
  nlohmann::json reference;
  reference["$ref"] = "#/definitions/" + definition;
  text["allOf"] = nlohmann::json::array({reference});
  valijson::Schema schema;
  valijson::SchemaParser().populateSchema(NlohmannJsonAdapter(text), schema);
  valijson::ValidationResults results;
  if (valijson::Validator().validate(schema, NlohmannJsonAdapter(document), &results)) {
    return testing::AssertionSuccess();
  }
  testing::AssertionResult failure = testing::AssertionFailure() << document.dump(2);
  for (valijson::ValidationResults::Error error; results.popError(error);) {
    for (const std::string& part : error.context) failure << part;
    failure << ": " << error.description << "\n";
  }
  return failure;
}

}  // namespace msb::test
