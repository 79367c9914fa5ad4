// SPDX-License-Identifier: Apache-2.0

#include "msb/version.h"

namespace msb {

std::string_view Version() noexcept { return MSB_VERSION_STRING; }

}  // namespace msb
