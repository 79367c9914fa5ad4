// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/record_file.h"

#include <utility>

#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::vmm {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;
using base::UniqueFd;

constexpr std::size_t kMaxRecordBytes = 1 << 20;

}  // namespace

bool HoldsSandbox(int dir) {
  return base::TypeAt(dir, std::string(kRecordFile)) == EntryType::kRegularFile;
}

UniqueFd OpenSandbox(const std::filesystem::path& dir, const std::string& name) {
  const UniqueFd parent = base::OpenDirectoryUnlessAbsent(dir);
  if (!parent || !base::IsPlainFileName(name) || name.starts_with('.')) return UniqueFd();
  for (;;) {
    Entry entry = base::OpenEntryAt(parent.get(), name);
    if (entry.type == EntryType::kAbsent && base::AwaitExchange(dir / name)) continue;
    if (entry.type != EntryType::kDirectory) return UniqueFd();
    // If neither holds, the sandbox was replaced after it was opened and is being deleted: open the
    // new one.
    if (HoldsSandbox(entry.fd.get()) || base::LeadsTo(dir / name, entry.fd.get())) {
      return std::move(entry.fd);
    }
  }
}

std::optional<DirectoryRecord> ReadRecord(int sandbox, const std::filesystem::path& path) {
  const Entry entry = base::OpenEntryAt(sandbox, std::string(kRecordFile));
  if (entry.type != EntryType::kRegularFile) return std::nullopt;
  const auto json = base::ReadAll(entry.fd.get(), kMaxRecordBytes);
  if (!json) {
    Throw(ErrorKind::kInvalidConfig,
          "the record of sandbox {} is longer than {} bytes; restore its sandbox.json, or remove "
          "the sandbox",
          path.native(), kMaxRecordBytes);
  }
  DirectoryRecord record = DirectoryRecord::Parse(*json, path);
  record.Judge(sandbox);
  return record;
}

void WriteNewRecord(DirectoryRecord& record, const base::Stage& stage,
                    const std::filesystem::path& path) {
  const std::string& image = record.sandbox.image->ref;
  if (!base::IsUtf8(image)) {
    Throw(ErrorKind::kInvalidArgument, "image path '{}' is not UTF-8", base::Quoted(image));
  }
  const std::string json = record.Write();
  // Half, because each seal adds a backing file to the record.
  if (json.size() > kMaxRecordBytes / 2) {
    Throw(ErrorKind::kInvalidArgument,
          "the record of sandbox {} would be longer than {} bytes; use fewer or shorter labels and "
          "machine settings",
          path.native(), kMaxRecordBytes / 2);
  }
  DirectoryRecord::Parse(json, path);
  base::WriteNewFileAt(stage.fd(), std::string(kRecordFile), json, 0666);
}

std::string SaveRecord(DirectoryRecord& record, int dir, const std::filesystem::path& path) {
  std::string json = record.Write();
  if (json.size() > kMaxRecordBytes) {
    Throw(ErrorKind::kInvalidConfig,
          "the record of sandbox {} would be longer than {} bytes; squash its last snapshot, and "
          "create a sandbox from the result",
          path.native(), kMaxRecordBytes);
  }
  base::ReplaceFileAt(dir, std::string(kRecordFile), json, 0666);
  return json;
}

}  // namespace msb::vmm
