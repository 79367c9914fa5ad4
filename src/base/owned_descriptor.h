// SPDX-License-Identifier: Apache-2.0
//
// Handles descriptors that forked processes must not keep, although fork() copies all descriptors.

#ifndef MSB_SRC_BASE_OWNED_DESCRIPTOR_H_
#define MSB_SRC_BASE_OWNED_DESCRIPTOR_H_

namespace msb::base {

// Marks a descriptor, owned by a UniqueFd, whose closing by this process must have an effect, such
// as releasing a lock or ending a virtual machine. In processes that are forked from now on, the
// descriptor's number belongs to a descriptor that can be neither read nor written. NoteLocked
// marks descriptors with a lock. Has no effect on numbers from 1048576 on, which are possible only
// with a raised limit of the kernel (fs.nr_open).
void NoteOwnedByProcess(int fd);

// Replaces the marked descriptors in a forked process. It is called by fork.cc.
void DropWhatParentOwns();

}  // namespace msb::base

#endif  // MSB_SRC_BASE_OWNED_DESCRIPTOR_H_
