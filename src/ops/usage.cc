// SPDX-License-Identifier: Apache-2.0

#include "src/ops/usage.h"

#include "src/base/throw.h"

namespace msb::ops {

std::vector<SnapshotUsage> UsageOfSnapshots(const Context& /*ctx*/, ClientState& /*client*/) {
  base::Throw(ErrorKind::kUnsupportedOperation, "not implemented yet");
}

}  // namespace msb::ops
