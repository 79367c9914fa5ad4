// SPDX-License-Identifier: Apache-2.0
//
// Provides Unix domain stream sockets with a name in the file system. The path may be of any
// length, although sockaddr_un holds only 108 bytes, since sockets are named relative to an open
// directory.

#ifndef MSB_SRC_BASE_UNIX_SOCKET_H_
#define MSB_SRC_BASE_UNIX_SOCKET_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "src/base/file.h"

namespace msb::base {

// Creates a listening socket dir/name that only its owner may connect to, replacing an existing
// socket of that name. Throws kIO if the name is taken by anything else, or if the socket cannot be
// created.
UniqueFd ListenAt(int dir, const std::string& name);

// Connects to dir/name with a non-blocking socket. If too many other clients wait to be accepted,
// waits too; QEMU serves one client at a time, and lets one more wait. Returns an empty descriptor
// if no process listens there: the name is absent, is not a socket, or refuses the connection.
// Throws kCancelled if ctx ends first, and kIO for any other failure.
UniqueFd TryConnectAt(const Context& ctx, int dir, const std::string& name);

// Returns true if a process listens at dir/name. Throws kIO if that cannot be determined.
bool IsServedAt(int dir, const std::string& name);

// Waits until bytes have arrived on a connected, non-blocking socket, reads as many of them as fit
// into buffer, and returns their number. Returns 0 once the other side has closed the connection
// and all bytes were read.
// Throws kCancelled if ctx has ended, even if bytes have arrived, so that a loop that calls it ends
// with ctx, however much the other side sends.
// Throws kIO if receiving fails.
std::size_t ReceiveSome(const Context& ctx, int fd, std::span<char> buffer);

// Sends all of bytes. Returns false, and raises no SIGPIPE, if the other side closes the connection
// meanwhile.
// Throws kCancelled if ctx ends first; some of the bytes may have been sent.
// Throws kIO if sending fails.
bool SendAll(const Context& ctx, int fd, std::string_view bytes);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_UNIX_SOCKET_H_
