// SPDX-License-Identifier: Apache-2.0

#include "src/base/fifo.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/throw.h"

namespace msb::base {

UniqueFd MakeFifoAt(int dir, const std::string& name, std::string_view content) {
  if (mkfifoat(dir, name.c_str(), 0600) != 0) ThrowErrnoAt("create the FIFO", dir, name);
  UniqueFd fd = OpenAt(dir, name.c_str(), O_RDWR | O_NONBLOCK | O_NOFOLLOW);
  if (!fd) ThrowErrnoAt("open", dir, name);
  struct stat st;
  if (fstat(fd.get(), &st) != 0) ThrowErrnoAt("stat", dir, name);
  if (!S_ISFIFO(st.st_mode))
    Throw(ErrorKind::kIO, "{} was replaced while it was opened: try again", PathOf(dir, name));
  // An empty pipe accepts up to PIPE_BUF (4096) bytes in one write.
  const ssize_t written = write(fd.get(), content.data(), content.size());
  if (written < 0) ThrowErrnoAt("write to", dir, name);
  if (static_cast<std::size_t>(written) != content.size()) {
    Throw(ErrorKind::kIO,
          "cannot write {} bytes to {}: only {} fit; raise the limit on the size of pipes (sysctl "
          "fs.pipe-user-pages-soft)",
          content.size(), PathOf(dir, name), written);
  }
  return fd;
}

}  // namespace msb::base
