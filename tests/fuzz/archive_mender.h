// SPDX-License-Identifier: Apache-2.0
//
// Corrects the digests and sizes in a mutated archive. Without that, hardly any mutation would get
// past their comparison and reach the code that follows.

#ifndef MSB_TESTS_FUZZ_ARCHIVE_MENDER_H_
#define MSB_TESTS_FUZZ_ARCHIVE_MENDER_H_

#include <vector>

#include "tests/fuzz/tar_parts.h"

namespace msb::fuzz {

// Mends as much as can be parsed: the digests of uppers in manifests, the digests of manifests in
// paths and in children, and the records of the files in archive.json.
void MendArchive(std::vector<TarPart>& parts);

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_ARCHIVE_MENDER_H_
