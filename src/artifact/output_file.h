// SPDX-License-Identifier: Apache-2.0
//
// An OutputFile represents a file that a caller asked for, such as an archive or a disk. It is
// written under a hidden name, and then renamed to its path.

#ifndef MSB_SRC_ARTIFACT_OUTPUT_FILE_H_
#define MSB_SRC_ARTIFACT_OUTPUT_FILE_H_

#include <filesystem>
#include <optional>
#include <string_view>

#include "msb/context.h"
#include "src/base/descriptor.h"
#include "src/base/new_directory.h"
#include "src/base/staging.h"

namespace msb::artifact {

// The destructor removes the file, and the directories that were created for it, unless Publish has
// succeeded.
class OutputFile {
 public:
  // Creates the parent directory of out, with its own parents, if it does not exist. kind, for
  // messages: "archive" or "disk".
  // Throws what CheckOutputDirectory throws.
  // Throws kInvalidArgument if out does not end in a name, or if something other than a regular
  // file exists there.
  OutputFile(std::string_view kind, std::filesystem::path out);

  // Creates the file, which is empty, and returns its descriptor. It has the permissions of the
  // file that it will replace, so that users who could not read that file cannot read this one.
  int Create();
  // Renames the file to its path, replacing a file that exists there. The caller must have flushed
  // it.
  void Publish(const Context& ctx);

 private:
  const std::filesystem::path out_;
  base::NewDirectory directory_;
  std::optional<base::Stage> stage_;
  base::UniqueFd file_;
};

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_OUTPUT_FILE_H_
