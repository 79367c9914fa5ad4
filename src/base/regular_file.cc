// SPDX-License-Identifier: Apache-2.0

#include "src/base/regular_file.h"

#include <utility>

#include "src/base/throw.h"

namespace msb::base {

UniqueFd RequireRegularFile(Entry entry, const std::filesystem::path& path, ErrorKind kind) {
  if (entry.type != EntryType::kRegularFile) {
    Throw(kind,
          "{} must be a regular file, but is {}: restore it, or remove the snapshot, sandbox or "
          "image that it belongs to",
          path.native(), Describe(entry.type));
  }
  return std::move(entry.fd);
}

UniqueFd OpenRegularFile(const std::filesystem::path& path, ErrorKind kind) {
  const UniqueFd dir = TryOpenDirectory(path.parent_path());
  return RequireRegularFile(dir ? OpenEntryAt(dir.get(), path.filename()) : Entry{}, path, kind);
}

}  // namespace msb::base
