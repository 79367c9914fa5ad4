// SPDX-License-Identifier: Apache-2.0
//
// Compares JSON documents with docs/msb-snapshot.schema.json.

#ifndef MSB_TESTS_PROGRAM_SCHEMA_H_
#define MSB_TESTS_PROGRAM_SCHEMA_H_

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace msb::test {

// Returns success if document matches the definition of this name.
testing::AssertionResult Matches(const nlohmann::json& document, const std::string& definition);

}  // namespace msb::test

#endif  // MSB_TESTS_PROGRAM_SCHEMA_H_
