// SPDX-License-Identifier: Apache-2.0

#ifndef MSB_TESTS_SUPPORT_SANDBOX_DISK_H_
#define MSB_TESTS_SUPPORT_SANDBOX_DISK_H_

#include <string>

#include "msb/msb.h"

namespace msb::test {

// Returns the content of the disk of a stopped sandbox as its guest sees it.
std::string DiskOf(const std::string& sandbox, const Client& client);

// Writes 64 KiB of a byte to the qcow2 or raw disk of a stopped sandbox, as its guest would. Fails
// the test if that is impossible.
void WriteAsGuest(const std::string& sandbox, int byte, std::uint64_t offset, const Client& client);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_SANDBOX_DISK_H_
