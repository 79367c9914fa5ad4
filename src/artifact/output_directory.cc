#include "src/artifact/output_directory.h"

#include <system_error>

#include "src/artifact/store.h"
#include "src/base/file.h"
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

base::NewDirectory MakeOutputDirectory(std::string_view kind, const std::filesystem::path& out) {
  if (!out.has_filename()) {
    base::Throw(ErrorKind::kInvalidArgument,
                "{} path '{}' is invalid: it must end in the name of a file", kind, out.native());
  }
  CheckOutputDirectory(out);
  return base::NewDirectory(out.parent_path());
}

void CheckOutputFile(std::string_view kind, const std::filesystem::path& out) {
  const base::UniqueFd parent = base::OpenDirectory(out.parent_path());
  const base::EntryType type = base::OpenEntryAt(parent.get(), out.filename()).type;
  if (type == base::EntryType::kAbsent || type == base::EntryType::kRegularFile) return;
  base::Throw(ErrorKind::kInvalidArgument,
              "{} must be absent or a regular file, but is {}; choose another path for the {}",
              out.native(), base::Describe(type), kind);
}

}  // namespace msb::artifact
