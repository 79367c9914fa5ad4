#include "src/artifact/group.h"

#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::artifact {
namespace {

using base::Throw;

// Nothing if the file is absent.
std::optional<std::string> ReadOptionalFile(int dir, const std::string& name,
                                            const std::string& origin) {
  const base::Entry entry = base::OpenEntryAt(dir, name);
  if (entry.type == base::EntryType::kAbsent) return std::nullopt;
  return ReadSmallFile(entry, origin);
}

}  // namespace

std::string ReadSmallFile(const base::Entry& entry, const std::string& origin) {
  if (entry.type != base::EntryType::kRegularFile) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} must be a regular file, but is {}", origin,
          base::Describe(entry.type));
  }
  auto bytes = base::ReadAll(entry.fd.get(), kMaxManifestBytes);
  if (!bytes) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} is longer than {} bytes", origin, kMaxManifestBytes);
  }
  return *std::move(bytes);
}

std::optional<std::string> ReadGroupHead(int dir, const std::filesystem::path& path) {
  const std::string origin = (path / "group.json").native();
  const auto bytes = ReadOptionalFile(dir, "group.json", origin);
  if (!bytes) return std::nullopt;
  std::string head = ParseGroupHead(*bytes, origin);
  if (!base::IsPlainFileName(head)) {
    Throw(ErrorKind::kSnapshotIntegrity, "{}: head '{}' is not one plain file name", origin,
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
