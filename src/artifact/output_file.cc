// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/output_file.h"

#include <utility>

#include "src/artifact/output_directory.h"
#include "src/base/file.h"
#include "src/base/throw.h"

namespace msb::artifact {
namespace {

base::NewDirectory MakeDirectoryOf(std::string_view kind, const std::filesystem::path& out) {
  if (!out.has_filename()) {
    base::Throw(ErrorKind::kInvalidArgument,
                "{} path '{}' is invalid: it must end in the name of a file", kind, out.native());
  }
  CheckOutputDirectory(out);
  return base::NewDirectory(out.parent_path());
}

}  // namespace

OutputFile::OutputFile(std::string_view kind, std::filesystem::path out)
    : out_(std::move(out)), directory_(MakeDirectoryOf(kind, out_)) {
  const base::UniqueFd parent = base::OpenDirectory(out_.parent_path());
  const base::EntryType type = base::OpenEntryAt(parent.get(), out_.filename()).type;
  if (type == base::EntryType::kAbsent || type == base::EntryType::kRegularFile) return;
  base::Throw(ErrorKind::kInvalidArgument,
              "{} must be absent or a regular file, but is {}; choose another path for the {}",
              out_.native(), base::Describe(type), kind);
}

int OutputFile::Create() {
  stage_.emplace(out_.parent_path());
  const auto replaced = base::StampOf(out_);
  file_ =
      base::CreateFileAt(stage_->fd(), out_.filename(), replaced ? replaced->mode & 0666 : 0666);
  return file_.get();
}

void OutputFile::Publish(const Context& ctx) {
  ctx.Check();
  stage_->PublishFile(out_.filename(), out_.filename());
  directory_.Keep();
}

}  // namespace msb::artifact
