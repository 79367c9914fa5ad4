// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/group.h"

#include <utility>

#include "src/base/regular_file.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::artifact {
namespace {

using base::Throw;

// Returns nothing if the file is absent.
std::optional<std::string> ReadOptionalFile(int dir, const std::string& name,
                                            const std::string& origin) {
  base::Entry entry = base::OpenEntryAt(dir, name);
  if (entry.type == base::EntryType::kAbsent) return std::nullopt;
  return ReadSmallFile(std::move(entry), origin);
}

}  // namespace

std::string ReadSmallFile(base::Entry entry, const std::string& origin) {
  const base::UniqueFd file =
      base::RequireRegularFile(std::move(entry), origin, ErrorKind::kSnapshotIntegrity);
  auto bytes = base::ReadAll(file.get(), kMaxManifestBytes);
  if (!bytes) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} is longer than {} bytes; restore it from a backup",
          origin, kMaxManifestBytes);
  }
  return *std::move(bytes);
}

std::optional<std::string> ReadGroupHead(int dir, const std::filesystem::path& path) {
  const std::string origin = (path / "group.json").native();
  const auto bytes = ReadOptionalFile(dir, "group.json", origin);
  if (!bytes) return std::nullopt;
  std::string head = ParseGroupHead(*bytes, origin);
  if (!base::IsPlainFileName(head)) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "{}: head must be a plain file name, but is '{}'; restore it from a backup", origin,
          base::Quoted(head));
  }
  return head;
}

std::optional<Membership> ReadMembership(int dir, const std::filesystem::path& path) {
  const std::string origin = (path / "group-member.json").native();
  const auto bytes = ReadOptionalFile(dir, "group-member.json", origin);
  if (!bytes) return std::nullopt;
  const std::filesystem::path group = path.parent_path();
  return Membership{.group = group.filename().native(),
                    .name = ParseGroupMember(*bytes, origin),
                    .group_path = group};
}

std::map<std::string, std::string> ReadLayeredLabels(int dir, const std::filesystem::path& path) {
  const std::string origin = (path / "metadata.json").native();
  const auto bytes = ReadOptionalFile(dir, "metadata.json", origin);
  if (!bytes) return {};
  return ParseLayeredMetadata(*bytes, origin);
}

}  // namespace msb::artifact
