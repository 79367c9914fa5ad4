// SPDX-License-Identifier: Apache-2.0
//
// Detects processes that may write to a file, now or while it is read.

#ifndef MSB_SRC_BASE_WRITERS_H_
#define MSB_SRC_BASE_WRITERS_H_

#include <optional>
#include <string_view>

#include "msb/context.h"
#include "msb/error.h"
#include "src/base/file.h"

namespace msb::base {

// Returns true if a process of any user, container or PID namespace under this kernel has the file
// open for writing, or has closed the file but still has a shared, writable mapping of it. fd must
// be open for reading only. Requests a read lease (fcntl(2), F_SETLEASE) and releases it at once.
// Returns nullopt if there may be a writer that a lease does not reveal: on network file systems,
// FUSE and overlayfs, whose underlying files have writers of their own, and for a file of another
// user without CAP_LEASE.
std::optional<bool> HasWriter(int fd);

// Like HasWriter, but waits up to half a second for a writer to close the file, since a newly
// forked process has copies of its parent's descriptors until it executes a program. Throws
// kCancelled if ctx ends meanwhile.
std::optional<bool> HasLastingWriter(const Context& ctx, int fd);

// Throws an error of this kind, which says that a file has a writer. file names the file, as the
// subject of the message.
[[noreturn]] void RefuseWriter(ErrorKind kind, std::string_view file);

// A WriteWatch detects writes to a file while the file is read.
//
// A store through a shared mapping changes the file's times only if the page was clean, so a
// process that has dirtied the pages before could write unnoticed. Where HasWriter has an answer,
// it finds such a process. Elsewhere the file is flushed first, which makes all its pages clean. A
// WriteWatch does not detect processes on another host that have the file mapped. Without an answer
// of HasWriter, it does not detect stores through a mapping of a file on tmpfs either, because the
// pages of such a file are never clean.
class WriteWatch {
 public:
  // Begins to watch a file that is open for reading only. Waits for writers as HasLastingWriter
  // does.
  WriteWatch(const Context& ctx, int fd);

  // Returns the stamp of the file when the watch began.
  const FileStamp& stamp() const { return stamp_; }
  // Returns true if a process had the file open for writing when the watch began.
  bool had_writer() const { return had_writer_; }
  // Returns true if the content is the same as when the watch began, as far as can be detected.
  // Also returns false if only the change time (ctime) differs: either the mode or the links
  // changed, or a program wrote to the file and set its modification time back. Then read the file
  // again.
  // Like the constructor, waits for writers and throws kCancelled if ctx ends meanwhile.
  bool Undisturbed(const Context& ctx) const;

 private:
  const int fd_;
  bool had_writer_ = false;
  FileStamp stamp_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_WRITERS_H_
