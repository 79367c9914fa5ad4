// SPDX-License-Identifier: Apache-2.0
//
// Reuses what an interrupted call has left in a stage with a key (base::Stage). It may be anything:
// these functions follow no symbolic link, and keep only directories and regular files.

#ifndef MSB_SRC_ARCHIVE_LEFTOVERS_H_
#define MSB_SRC_ARCHIVE_LEFTOVERS_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "src/artifact/manifest.h"
#include "src/base/file.h"

namespace msb::archive {

// Opens the directory dir/name. Creates it if it is absent, and replaces anything else.
base::UniqueFd ReuseDirectory(int dir, const std::string& name);

// A file in a stage that is open for reading and writing.
struct StagedFile {
  base::UniqueFd fd = {};
  bool is_left = false;  // An earlier call has left it, with any content. Otherwise it is a hole.
};

// Opens the file at path, which is relative to dir. Keeps a regular file of this size in bytes
// without further hard links. Replaces anything else by a file of this size. Directories in path
// are opened as ReuseDirectory does.
StagedFile ReuseFile(int dir, const std::filesystem::path& path, std::uint64_t size);

// Removes everything from an artifact directory except the files of these layers, and also removes
// those if they are not regular files of the recorded size without further hard links.
void KeepDisks(int directory, const std::vector<artifact::Layer>& layers);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_LEFTOVERS_H_
