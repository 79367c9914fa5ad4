// The files beside the manifests of 0.7 groups. All may be hostile: kSnapshotIntegrity.

#ifndef MSB_SRC_ARTIFACT_GROUP_H_
#define MSB_SRC_ARTIFACT_GROUP_H_

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "src/artifact/store.h"
#include "src/base/file.h"

namespace msb::artifact {

// The whole of a manifest or of one of its neighbours, which must be a regular file of at most
// kMaxManifestBytes.
std::string ReadSmallFile(const base::Entry& entry, const std::string& origin);

// The head's directory name if dir, at path, is a group.
std::optional<std::string> ReadGroupHead(int dir, const std::filesystem::path& path);
// What the snapshot in dir, at path, is in its group, if it is in one.
std::optional<Membership> ReadMembership(int dir, const std::filesystem::path& path);
std::map<std::string, std::string> ReadLayeredLabels(int dir, const std::filesystem::path& path);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_GROUP_H_
