// SPDX-License-Identifier: Apache-2.0
//
// Builds the archive.json of a sample archive from its entries, without the library's own code.

#ifndef MSB_TESTS_SUPPORT_ARCHIVE_INVENTORY_H_
#define MSB_TESTS_SUPPORT_ARCHIVE_INVENTORY_H_

#include "tests/support/archive_sample.h"

namespace msb::test {

Json InventoryOf(const SampleArchive& archive);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_ARCHIVE_INVENTORY_H_
