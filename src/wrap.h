// SPDX-License-Identifier: Apache-2.0
//
// Defines the state behind the handles of the public API, and creates handles from the results of
// operations.

#ifndef MSB_SRC_WRAP_H_
#define MSB_SRC_WRAP_H_

#include <memory>
#include <string>
#include <vector>

#include "msb/artifact.h"
#include "msb/handle.h"
#include "src/artifact/store.h"
#include "src/index/row.h"
#include "src/ops/client_state.h"

namespace msb::internal {

struct ArtifactState {
  static SnapshotArtifact Wrap(std::shared_ptr<ClientState> client, artifact::Artifact artifact);
  static std::vector<SnapshotArtifact> WrapAll(const std::shared_ptr<ClientState>& client,
                                               std::vector<artifact::Artifact> artifacts);

  std::shared_ptr<ClientState> client;
  artifact::Artifact artifact;
  // The accessors return references to these.
  std::string path;
  std::string format;
  std::string consistency;
};

struct HandleState {
  static SnapshotHandle Wrap(std::shared_ptr<ClientState> client, index::Row row);
  static std::vector<SnapshotHandle> WrapAll(const std::shared_ptr<ClientState>& client,
                                             std::vector<index::Row> rows);

  std::shared_ptr<ClientState> client;
  index::Row row;
};

}  // namespace msb::internal

#endif  // MSB_SRC_WRAP_H_
