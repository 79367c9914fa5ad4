// Defines the state that the objects of the public API share with their client.

#ifndef MSB_SRC_CLIENT_STATE_H_
#define MSB_SRC_CLIENT_STATE_H_

#include <filesystem>
#include <memory>
#include <string>

#include "msb/artifact.h"
#include "msb/client.h"
#include "msb/handle.h"
#include "msb/snapshot.h"
#include "src/artifact/disk_chain.h"
#include "src/artifact/store.h"
#include "src/handle/catalog.h"
#include "src/index/row.h"

namespace msb::internal {

// The longest name that a snapshot may have, in bytes: the longest name of a file.
inline constexpr std::size_t kMaxSnapshotName = 255;

struct ClientState {
  explicit ClientState(Config given);

  static std::shared_ptr<ClientState> Of(const Client& client) { return client.state_; }

  void Log(std::string_view message) const { config.log(message); }
  // Sweeps the directory that contains the destination of a call (base::SweepStages).
  void SweepBeside(const Context& ctx, const std::filesystem::path& destination) const;
  // Returns the absolute path of dir, or the snapshots directory if dir is empty.
  std::filesystem::path DirectoryOrDefault(const std::filesystem::path& dir) const;

  Config config;
  std::shared_ptr<vmm::Backend> backend;
  handle::Catalog catalog;
};

struct ArtifactState {
  static SnapshotArtifact Wrap(std::shared_ptr<ClientState> client, artifact::Artifact artifact);

  std::shared_ptr<ClientState> client;
  artifact::Artifact artifact;
  // The accessors return references to these.
  std::string path;
  std::string format;
};

struct HandleState {
  static SnapshotHandle Wrap(std::shared_ptr<ClientState> client, index::Row row);

  std::shared_ptr<ClientState> client;
  index::Row row;
};

// Throws kSandboxNotFound for a name that no sandbox can have: one that begins with '.', or that is
// not a plain file name. After this check, a backend may use the name in a path.
void CheckSandboxName(const std::string& name);

// Opens a snapshot by name or path. If it is in the snapshots directory, adds it to the index or
// brings its row up to date.
artifact::OpenedArtifact OpenSnapshot(const Context& ctx, ClientState& client,
                                      const std::string& path_or_name);
// Opens the files of a snapshot's disk, including those that it is backed by.
artifact::DiskChain OpenDisk(const Context& ctx, ClientState& client,
                             artifact::OpenedArtifact snapshot);
// Returns the users argument of Catalog::Remove: a function that finds the sandboxes whose disks
// are currently backed by a snapshot. Returns an empty function if force is set, because sandboxes
// do not prevent the removal then.
handle::Catalog::Users UsersUnless(bool force, const Context& ctx, ClientState& client);
SnapshotArtifact CreateSnapshot(const Context& ctx, const std::shared_ptr<ClientState>& client,
                                const std::string& source_sandbox,
                                const SnapshotCreateOptions& options);

}  // namespace msb::internal

#endif  // MSB_SRC_CLIENT_STATE_H_
