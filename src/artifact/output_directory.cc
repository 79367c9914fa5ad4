// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/output_directory.h"

#include <system_error>

#include "src/artifact/store.h"
#include "src/base/throw.h"

namespace msb::artifact {

void CheckOutputDirectory(const std::filesystem::path& out) {
  const std::filesystem::path directory = out.parent_path();
  std::filesystem::path existing = directory;
  std::error_code error;
  while (!std::filesystem::exists(existing, error) && existing.has_relative_path()) {
    existing = existing.parent_path();
  }
  if (HoldsArtifact(existing)) {
    base::Throw(ErrorKind::kInvalidArgument,
                "cannot write {}: {} is a snapshot; write it elsewhere", out.native(),
                existing.native());
  }
}

}  // namespace msb::artifact
