// SPDX-License-Identifier: Apache-2.0
//
// Finds, opens and walks artifacts on disk. Does not use the index.

#ifndef MSB_SRC_ARTIFACT_STORE_H_
#define MSB_SRC_ARTIFACT_STORE_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"
#include "src/artifact/manifest.h"
#include "src/base/file.h"

namespace msb::artifact {

// A Membership describes a snapshot as a member of a 0.7 group.
struct Membership {
  std::string group;  // The group directory's name.
  std::string name;
  std::filesystem::path group_path;
};

// A DirectoryId identifies a directory regardless of its name.
struct DirectoryId {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;

  bool operator==(const DirectoryId&) const = default;
};
DirectoryId IdOf(int dir);

// An Artifact describes an artifact as it was when it was opened. It holds no file descriptors, so
// any number of Artifacts can be kept; see OpenedArtifact.
struct Artifact {
  std::filesystem::path path = {};  // Absolute.
  Manifest manifest = {};
  std::optional<Membership> member = {};
  DirectoryId directory = {};  // Zero if unknown.

  // Returns the name by which the artifact is indexed: for a member of a group its name in the
  // group, otherwise the name of its directory.
  std::string Name() const;
};

// Throws kInvalidConfig unless a snapshot may have this name.
void CheckSnapshotName(const std::string& name);

// Returns true if the string contains '/' or begins with '.' or '~', and so is a path, not a name.
bool IsPath(std::string_view path_or_name);

// A LayerFile is a file of an artifact that is open for reading.
struct LayerFile {
  base::UniqueFd fd;
  base::FileStamp stamp;  // The stamp when the file was opened.
};

// An OpenedArtifact is an artifact that was opened once: its manifest was read, and the files of
// its disk were opened, through one descriptor of its directory. Therefore they all belong to the
// same artifact, and stay readable when its path is removed or replaced.
struct OpenedArtifact {
  Artifact artifact = {};
  std::vector<LayerFile> layers = {};  // In the order of the manifest's layers.
};

// Returns another descriptor of a layer's file. Opens the file again if CloseLayers has closed it.
// Throws kSnapshotNotFound if the file was closed, and since then it has changed, or its artifact
// was removed or replaced.
base::UniqueFd OpenLayer(const OpenedArtifact& opened, std::size_t layer);
// Closes the files but keeps their stamps, by which OpenLayer recognizes the files. This saves
// descriptors when very many artifacts are open.
void CloseLayers(OpenedArtifact& opened);

// Opens the artifact, or the head of the group, in exactly this directory. Checks the manifest, and
// that every layer is a regular file of the recorded size. Tries again if the artifact was removed
// or replaced meanwhile, at most 100 times.
// Throws kSnapshotNotFound if there is no artifact, or if it was removed or replaced each time.
// Throws kSnapshotIntegrity if it is damaged.
OpenedArtifact OpenAt(const Context& ctx, const std::filesystem::path& path);
// Does the same for the artifact that a path, or a name in snapshots_dir ("NAME", "GROUP:NAME" or
// "GROUP"), refers to. Throws kInvalidConfig for a string that is neither a path nor a valid name.
OpenedArtifact OpenNamed(const Context& ctx, const std::filesystem::path& snapshots_dir,
                         const std::string& path_or_name);
// Opens an artifact as OpenAt does, but closes its files again. Cannot be cancelled.
Artifact OpenArtifactAt(const std::filesystem::path& path);

// Returns true if the artifact's path still leads to the directory that was opened, and false if
// that directory was removed or replaced since.
bool IsInPlace(const Artifact& artifact);

// Returns the manifest in a directory, or nullopt if it is missing, malformed or unsupported. Does
// not check the layers.
std::optional<Manifest> ReadManifest(const std::filesystem::path& path);
// Does the same for an open directory. path is used only in messages.
std::optional<Manifest> ReadManifest(int dir, const std::filesystem::path& path);

// Throws kSnapshotNotFound if the artifact that holds a backing file is no longer the one that the
// file is named after, because a call with force has replaced it since.
void CheckUnreplaced(const BackingFile& file);

// Returns true if Remove, or Create with force, may delete the directory: if it has a valid
// manifest, or a damaged manifest and only files and directories that artifacts have.
bool HoldsArtifact(const std::filesystem::path& path);
// Does the same for an open directory. path is used only in messages.
bool HoldsArtifact(int dir, const std::filesystem::path& path);

// Calls found for each artifact in the subdirectories of dir, and for each member of the groups
// there, sorted by directory name. Opens each artifact as OpenAt does, and closes its files again.
// Skips hidden directories, symbolic links, directories without a manifest, and artifacts that are
// removed meanwhile. Calls failed for each artifact that is damaged (kSnapshotIntegrity) or cannot
// be read (kIO), and skips it. Does nothing if dir does not exist.
void WalkArtifacts(const Context& ctx, const std::filesystem::path& dir,
                   const std::function<void(Artifact)>& found,
                   const std::function<void(const Error&)>& failed);

// Does the same, but reads only the manifests: it does not check the disks, and does not read the
// labels and memberships of 0.7 snapshots. If ids is not empty, may skip manifests that mention
// none of these digests and snapshot ids, without parsing them.
void WalkManifests(const Context& ctx, const std::filesystem::path& dir,
                   const std::function<void(Artifact)>& found,
                   const std::function<void(const Error&)>& failed,
                   const std::vector<std::string>& ids = {});

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_STORE_H_
