// SPDX-License-Identifier: Apache-2.0
//
// Describes a client's home as the receiver of snapshots, for Import and Pull.

#ifndef MSB_SRC_OPS_RECEIVER_H_
#define MSB_SRC_OPS_RECEIVER_H_

#include <filesystem>

#include "msb/context.h"
#include "src/archive/intake.h"
#include "src/handle/finder.h"
#include "src/ops/client_state.h"

namespace msb::ops {

// Prepares the directory dest ("" means the snapshots directory) and returns a receiver that looks
// in the client's home and in dest for snapshots that exist already, and that gives the head this
// name ("" means its identity). ctx, client and finder must outlive it.
// Throws kInvalidArgument if dest is inside a snapshot, and kInvalidConfig if the name is invalid.
archive::IntakeSpec ReceiverAt(const Context& ctx, ClientState& client,
                               handle::SnapshotFinder& finder, const std::filesystem::path& dest,
                               const std::string& name);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_RECEIVER_H_
