// SPDX-License-Identifier: Apache-2.0

#include "src/ops/prune.h"

#include "src/base/throw.h"

namespace msb::ops {

std::vector<index::Row> PruneSnapshots(const Context& /*ctx*/, ClientState& /*client*/,
                                       const SnapshotPruneOptions& /*options*/) {
  base::Throw(ErrorKind::kUnsupportedOperation, "not implemented yet");
}

}  // namespace msb::ops
