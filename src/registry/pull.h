// SPDX-License-Identifier: Apache-2.0
//
// Gets snapshots from a registry that may be hostile.

#ifndef MSB_SRC_REGISTRY_PULL_H_
#define MSB_SRC_REGISTRY_PULL_H_

#include <vector>

#include "msb/context.h"
#include "msb/registry.h"
#include "src/archive/intake.h"
#include "src/artifact/store.h"
#include "src/registry/origins.h"
#include "src/registry/reference.h"

namespace msb::registry {

struct PullSpec {
  Reference reference;
  RegistryOptions options;
  archive::IntakeSpec receiver;
};

// Gets the snapshots that the reference names and that the receiver does not have, and the image
// files, and flushes them to disk. A failed call publishes nothing. It keeps the stage, so that the
// next pull of the same head continues, unless the data of the registry was refused. Returns all
// snapshots with their current paths, parents first, the head last; only the head if the receiver
// has it. Adds the repository to the origins of the snapshots. Progress phase "pull".
// Throws what RemoteFiles, PullChunks, archive::Intake and RegistryClient throw.
std::vector<artifact::Artifact> PullSnapshots(const Context& ctx, const PullSpec& spec,
                                              Origins& origins);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_PULL_H_
