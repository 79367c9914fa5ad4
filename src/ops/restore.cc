// SPDX-License-Identifier: Apache-2.0

#include "src/ops/restore.h"

#include "src/base/throw.h"

namespace msb::ops {

void RestoreSandbox(const Context& /*ctx*/, ClientState& /*client*/, const std::string& /*sandbox*/,
                    const std::string& /*name_or_path*/) {
  base::Throw(ErrorKind::kUnsupportedOperation, "not implemented yet");
}

}  // namespace msb::ops
