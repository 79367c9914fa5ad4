// Stream sockets in the file system. A path may be of any length, though sockaddr_un holds 108
// bytes: sockets are named beneath an open directory.

#ifndef MSB_SRC_BASE_UNIX_SOCKET_H_
#define MSB_SRC_BASE_UNIX_SOCKET_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "src/base/file.h"

namespace msb::base {

// Makes a listening socket dir/name that only its owner may connect to, in place of a socket that
// may be there. kIO.
UniqueFd ListenAt(int dir, const std::string& name);

// Connects to dir/name, non-blocking. An empty descriptor if nobody listens there: the name is
// absent, no socket, or refuses. kIO.
UniqueFd TryConnectAt(int dir, const std::string& name);

// Waits until bytes have come on a connected, non-blocking socket, takes as many as there are and
// buffer holds, and returns their number; 0 once the other side has closed and all is taken.
// kCancelled, if none are there; kIO.
std::size_t ReceiveSome(const Context& ctx, int fd, std::span<char> buffer);

// Sends all of bytes; false if the other side closes meanwhile. Raises no SIGPIPE. kCancelled, with
// perhaps a part of them sent; kIO.
bool SendAll(const Context& ctx, int fd, std::string_view bytes);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_UNIX_SOCKET_H_
