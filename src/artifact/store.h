// Artifacts on disk: finding, opening, walking and verifying them. Nothing here knows the index.

#ifndef MSB_SRC_ARTIFACT_STORE_H_
#define MSB_SRC_ARTIFACT_STORE_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "src/artifact/manifest.h"
#include "src/base/file.h"

namespace msb::artifact {

// A member of a 0.7 group.
struct Membership {
  std::string group;  // The group directory's name.
  std::string name;
  std::filesystem::path group_path;
};

struct Artifact {
  std::filesystem::path path = {};  // Absolute.
  Manifest manifest = {};
  std::optional<Membership> member = {};

  // The name it is indexed by: a member's name in its group, else that of its directory.
  std::string Name() const;
};

// True for what contains '/' or begins with '.' or '~': a path, not a name.
bool IsPath(std::string_view path_or_name);

// Opens the artifact that a path or a name under snapshots_dir ("NAME", "GROUP:NAME", "GROUP") is.
// Checks the manifest and that every layer is a regular file of the recorded size.
// kSnapshotNotFound, kSnapshotIntegrity, kInvalidConfig (what is neither path nor name).
Artifact OpenArtifact(const std::filesystem::path& snapshots_dir, const std::string& path_or_name);
// The artifact, or the head of the group, in exactly this directory.
Artifact OpenArtifactAt(const std::filesystem::path& path);

// The manifest in a directory; nothing if there is no sound one. Does not look at the layers.
std::optional<Manifest> ReadManifest(const std::filesystem::path& path);

// Throws kSnapshotNotFound if a backing file is in an artifact that is not the one its name says:
// it was replaced, by force, since that was found.
void CheckUnreplaced(const vmm::BackingFile& file);

// True for a directory that Remove and force may delete: one with a sound manifest, or one with a
// damaged manifest and nothing in it that is foreign to artifacts.
bool HoldsArtifact(const std::filesystem::path& path);

// A layer of an artifact, open for reading, checked as OpenArtifact does.
base::UniqueFd OpenLayer(const Artifact& artifact, const Layer& layer);

// The artifacts in the subdirectories of dir, and the members of the groups there, by name. Skips
// hidden directories, symbolic links and what has no manifest; tells malformed, and skips, what
// cannot be opened. Calls found for each; empty if dir is absent.
void WalkArtifacts(const Context& ctx, const std::filesystem::path& dir,
                   const std::function<void(Artifact)>& found,
                   const std::function<void(std::string_view message)>& malformed);

// Computes the integrity that a layer records and compares. Nothing recorded: returns nothing.
// kSnapshotIntegrity: it differs, or the file changed meanwhile.
std::optional<Integrity> VerifyLayer(const Context& ctx, const Artifact& artifact,
                                     const Layer& layer);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_STORE_H_
