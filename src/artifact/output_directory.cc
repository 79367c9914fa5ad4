// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/output_directory.h"

#include <array>
#include <system_error>
#include <utility>

#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/base/rename.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::artifact {
namespace {

// Returns path with the symbolic links in its existing part resolved, or path itself if they cannot
// be resolved.
std::filesystem::path Resolve(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::path resolved = std::filesystem::weakly_canonical(path, error);
  return error ? path : resolved;
}

bool IsAtOrBeneath(const std::filesystem::path& path, const std::filesystem::path& dir) {
  const std::filesystem::path resolved = Resolve(dir);
  return path == resolved || base::IsBeneath(path, resolved);
}

}  // namespace

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

void CheckOutputPath(const base::Home& home, const std::filesystem::path& out) {
  const bool is_inside = base::IsBeneath(out, home.path());
  for (const std::filesystem::path& part : is_inside ? out.lexically_relative(home.path()) : out) {
    if (!base::IsHiddenName(part.native())) continue;
    base::Throw(ErrorKind::kInvalidArgument,
                "cannot write {}: msb deletes directories whose names begin as '{}' does, if they "
                "seem to be left by an interrupted call; choose another name",
                out.native(), part.native());
  }
  const std::filesystem::path resolved = Resolve(out.parent_path()) / out.filename();
  if (IsAtOrBeneath(resolved, home.snapshots_dir())) return;
  const std::array<std::pair<std::filesystem::path, std::string_view>, 3> own = {
      {{home.sandboxes_dir(), "its sandboxes"},
       {home.cache_dir(), "its cache"},
       {home.DatabaseDir(), "its databases"}}};
  for (const auto& [dir, content] : own) {
    if (!IsAtOrBeneath(resolved, dir)) continue;
    base::Throw(ErrorKind::kInvalidArgument,
                "cannot write {}: the home {} keeps {} in {}; write it elsewhere", out.native(),
                home.path().native(), content, dir.native());
  }
}

std::filesystem::path OutputPath(const base::Home& home, std::string_view kind,
                                 const std::filesystem::path& out) {
  const std::filesystem::path name = out.filename();
  if (!out.empty() && (name.empty() || name == "." || name == "..")) {
    base::Throw(ErrorKind::kInvalidArgument,
                "{} path '{}' is invalid: it must end in the name of a file", kind,
                base::Quoted(out.native()));
  }
  std::filesystem::path path = base::AbsolutePath(out.native());
  CheckOutputPath(home, path);
  return path;
}

}  // namespace msb::artifact
