// SPDX-License-Identifier: Apache-2.0
//
// Checks that a snapshot can become the disk of an existing sandbox.

#ifndef MSB_SRC_VMM_SAME_IMAGE_H_
#define MSB_SRC_VMM_SAME_IMAGE_H_

#include "msb/vmm/backend.h"

namespace msb::vmm {

// Throws kInvalidArgument, naming both images, unless the snapshot was made from the image that the
// sandbox was made from. Images are compared by their digests.
void CheckSameImage(const SandboxRecord& sandbox, const SnapshotSource& snapshot);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_SAME_IMAGE_H_
