// What the handles of the public API share with their client.

#ifndef MSB_SRC_CLIENT_STATE_H_
#define MSB_SRC_CLIENT_STATE_H_

#include <memory>
#include <string>

#include "msb/artifact.h"
#include "msb/client.h"
#include "msb/handle.h"
#include "msb/snapshot.h"
#include "src/artifact/store.h"
#include "src/handle/catalog.h"
#include "src/index/row.h"

namespace msb::internal {

// Bytes; the longest name that a file may have.
inline constexpr std::size_t kMaxSnapshotName = 255;

struct ClientState {
  explicit ClientState(Config given);

  static std::shared_ptr<ClientState> Of(const Client& client) { return client.state_; }

  void Log(std::string_view message) const { config.log(message); }

  Config config;
  std::shared_ptr<vmm::Backend> backend;
  handle::Catalog catalog;
};

struct ArtifactState {
  static SnapshotArtifact Wrap(std::shared_ptr<ClientState> client, artifact::Artifact artifact);

  std::shared_ptr<ClientState> client;
  artifact::Artifact artifact;
  std::string path;  // What the accessors return references to.
  std::string format;
};

struct HandleState {
  static SnapshotHandle Wrap(std::shared_ptr<ClientState> client, index::Row row);

  std::shared_ptr<ClientState> client;
  index::Row row;
};

// Behind more than one public name: Snapshot::Open and Snapshot::Create.
artifact::Artifact OpenSnapshot(const Context& ctx, ClientState& client,
                                const std::string& path_or_name);
SnapshotArtifact CreateSnapshot(const Context& ctx, const std::shared_ptr<ClientState>& client,
                                const std::string& source_sandbox,
                                const SnapshotCreateOptions& options);

}  // namespace msb::internal

#endif  // MSB_SRC_CLIENT_STATE_H_
