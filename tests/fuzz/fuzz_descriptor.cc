// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the parser of snapshot.json, releases 0.6.7 to 0.6.18.

#include <cstddef>
#include <cstdint>

#include "tests/fuzz/properties.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace msb::fuzz;
  CheckSealedForm(msb::artifact::ManifestForm::kDescriptor, AsText(data, size));
  return 0;
}
