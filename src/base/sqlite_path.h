// SPDX-License-Identifier: Apache-2.0
//
// Determines names under which SQLite can open databases. SQLite does not open a file whose path,
// with all symbolic links resolved, is longer than about 500 bytes. Such a path is passed to SQLite
// relative to a descriptor of its directory ("/proc/self/fd/N/NAME"), through a VFS that does not
// resolve symbolic links.

#ifndef MSB_SRC_BASE_SQLITE_PATH_H_
#define MSB_SRC_BASE_SQLITE_PATH_H_

#include <filesystem>
#include <memory>
#include <string>

#include "src/base/descriptor.h"

namespace msb::base {

// A SqlitePath represents the name of a database. It must outlive the connection that was opened
// with it. Long paths into the same directory share a descriptor, so that each database has only
// one name. This is necessary because SQLite remembers names for all connections of a process.
class SqlitePath {
 public:
  SqlitePath() = default;
  explicit SqlitePath(const std::filesystem::path& path);

  const std::string& name() const { return name_; }
  // Returns the name as a "file:" URI without parameters.
  std::string Uri() const;
  // Returns the name of the VFS to open the database with, or null for the default VFS.
  const char* vfs() const;

 private:
  std::string name_;
  std::shared_ptr<const UniqueFd> directory_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_SQLITE_PATH_H_
