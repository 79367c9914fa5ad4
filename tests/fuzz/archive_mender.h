// Makes the digests and sizes in a mutated archive those of its content, which no mutation would
// ever hit on: so that what follows their comparison is reached too.

#ifndef MSB_TESTS_FUZZ_ARCHIVE_MENDER_H_
#define MSB_TESTS_FUZZ_ARCHIVE_MENDER_H_

#include <vector>

#include "tests/fuzz/tar_parts.h"

namespace msb::fuzz {

// As far as the parts can be read. Mends the uppers' digests in manifests, manifests' digests in
// paths and children, and what archive.json says of each file that it lists.
void MendArchive(std::vector<TarPart>& parts);

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_ARCHIVE_MENDER_H_
