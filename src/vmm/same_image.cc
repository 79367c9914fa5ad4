// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/same_image.h"

#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::vmm {

void CheckSameImage(const SandboxRecord& sandbox, const SnapshotSource& snapshot) {
  const Image none{.ref = "no image", .manifest_digest = "none"};
  const Image& own = sandbox.image ? *sandbox.image : none;
  if (own.manifest_digest == snapshot.image.manifest_digest) return;
  base::Throw(ErrorKind::kInvalidArgument,
              "cannot restore sandbox '{}' to {}: the image of the sandbox is '{}' ({}), but that "
              "of the snapshot is '{}' ({}); create a sandbox from the snapshot instead",
              sandbox.name, snapshot.artifact.native(), base::Quoted(own.ref), own.manifest_digest,
              base::Quoted(snapshot.image.ref), snapshot.image.manifest_digest);
}

}  // namespace msb::vmm
