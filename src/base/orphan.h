// SPDX-License-Identifier: Apache-2.0
//
// Forks processes that are not children of this one, so that they leave no zombies for it to reap.

#ifndef MSB_SRC_BASE_ORPHAN_H_
#define MSB_SRC_BASE_ORPHAN_H_

#include <functional>
#include <string_view>

namespace msb::base {

// Forks twice, so that the new process becomes a child of init, and calls run(0) in it. If there
// cannot be a new process, calls run with the errno in the intermediate one. run must not return,
// and must only make system calls and allocate nothing: its process is a copy of one thread of a
// program with many. All signals are blocked in it. When this function returns, the intermediate
// process has ended. purpose says in messages what the process is for.
// Throws kIO if no process can be forked.
void ForkOrphan(std::string_view purpose, const std::function<void(int error)>& run);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_ORPHAN_H_
