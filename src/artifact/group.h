// SPDX-License-Identifier: Apache-2.0
//
// Reads the files that describe 0.7 groups and their members. They may be hostile: every function
// throws kSnapshotIntegrity if a file is malformed, too long or not a regular file.

#ifndef MSB_SRC_ARTIFACT_GROUP_H_
#define MSB_SRC_ARTIFACT_GROUP_H_

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "src/artifact/store.h"
#include "src/base/file.h"

namespace msb::artifact {

// Returns the content of a manifest, or of a file that describes a group or a member. It must be a
// regular file of at most kMaxManifestBytes. origin is the name of the file in messages.
std::string ReadSmallFile(base::Entry entry, const std::string& origin);

// Returns the name of the head's directory if the open directory dir, at path, is a group, and
// nullopt otherwise.
std::optional<std::string> ReadGroupHead(int dir, const std::filesystem::path& path);
// Returns the group of the snapshot in the open directory dir, at path, and its name in the group,
// or nullopt if it is not a member of a group.
std::optional<Membership> ReadMembership(int dir, const std::filesystem::path& path);
// Returns the labels of the snapshot in the open directory dir, at path. Returns an empty map if
// none are recorded.
std::map<std::string, std::string> ReadLayeredLabels(int dir, const std::filesystem::path& path);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_GROUP_H_
