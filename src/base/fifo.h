// SPDX-License-Identifier: Apache-2.0
//
// Creates named pipes (fifo(7)), by which a program that takes a path can be given input.

#ifndef MSB_SRC_BASE_FIFO_H_
#define MSB_SRC_BASE_FIFO_H_

#include <string>
#include <string_view>

#include "src/base/file.h"

namespace msb::base {

// Creates the FIFO dir/name, which only its owner may open, and writes content to it, which may
// have at most 4096 bytes. Returns a descriptor that is open for reading and writing. The FIFO
// keeps the content as long as a process has it open.
// Throws kIO if the name exists, or if content does not fit.
UniqueFd MakeFifoAt(int dir, const std::string& name, std::string_view content);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_FIFO_H_
