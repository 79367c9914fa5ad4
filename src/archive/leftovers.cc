// SPDX-License-Identifier: Apache-2.0

#include "src/archive/leftovers.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "src/base/remove_tree.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

using artifact::Layer;
using base::Entry;
using base::EntryType;
using base::FileStamp;
using base::UniqueFd;

constexpr mode_t kOwnerMayWrite = 0600;

// Returns true if the entry is a regular file of this size, or of any size if none is given. A file
// that has further hard links may belong to something else.
bool IsReusable(const Entry& entry, std::optional<std::uint64_t> size) {
  if (entry.type != EntryType::kRegularFile) return false;
  const FileStamp stamp = base::StampOf(entry.fd.get());
  return stamp.links == 1 && (!size || stamp.size == *size);
}

// Removes everything from dir except reusable files of the layers. Paths of layers begin with path
// if they are in dir.
void KeepDisksIn(int dir, const std::string& path, const std::vector<Layer>& layers) {
  for (const base::DirectoryEntry& listed : base::ListDirectory(dir)) {
    const std::string file = path + listed.name;
    const Entry entry = base::OpenEntryAt(dir, listed.name);
    const auto is_disk = [&](const Layer& layer) {
      return layer.file == file && IsReusable(entry, layer.file_bytes);
    };
    const auto is_beneath = [&](const Layer& layer) { return layer.file.starts_with(file + "/"); };
    if (std::any_of(layers.begin(), layers.end(), is_disk)) continue;
    if (entry.type == EntryType::kDirectory &&
        std::any_of(layers.begin(), layers.end(), is_beneath)) {
      KeepDisksIn(entry.fd.get(), file + "/", layers);
    } else {
      base::RemoveTreeAt(dir, listed.name);
    }
  }
}

}  // namespace

UniqueFd ReuseDirectory(int dir, const std::string& name) {
  Entry entry = base::OpenEntryAt(dir, name);
  if (entry.type != EntryType::kDirectory) {
    base::RemoveTreeAt(dir, name);
    base::MakeDirectoryAt(dir, name);
    entry = base::OpenEntryAt(dir, name);
  }
  if (!entry.fd) base::ThrowErrnoAt("open directory", dir, name, ENOTDIR);
  return std::move(entry.fd);
}

StagedFile ReuseFile(int dir, const std::filesystem::path& path, std::uint64_t size) {
  UniqueFd opened;
  int parent = dir;
  for (const std::filesystem::path& part : path.parent_path()) {
    opened = ReuseDirectory(parent, part);
    parent = opened.get();
  }
  const std::string name = path.filename();
  const Entry entry = base::OpenEntryAt(parent, name);
  if (IsReusable(entry, size)) {
    const mode_t mode = base::StampOf(entry.fd.get()).mode;
    if ((mode & kOwnerMayWrite) != kOwnerMayWrite) {
      base::SetMode(entry.fd.get(), mode | kOwnerMayWrite);
    }
    return {base::OpenForUpdateAt(parent, name), true};
  }
  base::RemoveTreeAt(parent, name);
  StagedFile file{base::CreateFileAt(parent, name, 0666)};
  base::Resize(file.fd.get(), size);
  return file;
}

void KeepDisks(int directory, const std::vector<Layer>& layers) {
  KeepDisksIn(directory, "", layers);
}

}  // namespace msb::archive
