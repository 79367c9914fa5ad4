// SPDX-License-Identifier: Apache-2.0

#include "tests/soak/expected.h"

#include <algorithm>
#include <map>
#include <vector>

namespace msb::soak {
namespace {

const std::map<Op, std::vector<ErrorKind>>& Table() {
  using enum ErrorKind;
  static const std::map<Op, std::vector<ErrorKind>> kTable = {
      // The sandbox was removed or started; the name is taken, by a snapshot or a foreign file; or
      // force would replace a snapshot that other disks are backed by.
      {Op::kCreate,
       {kSandboxNotFound, kSnapshotSandboxRunning, kSnapshotAlreadyExists, kSnapshotHasChildren}},
      // The snapshot, or one that its disk is backed by, was removed.
      {Op::kSquash, {kSnapshotNotFound, kSnapshotAlreadyExists, kSnapshotHasChildren}},
      // The home has the snapshot already, or lacks a snapshot or image that the archive needs.
      {Op::kImport, {kSnapshotAlreadyExists, kSnapshotNotFound, kSnapshotImageMissing}},
      {Op::kRemove, {kSnapshotNotFound, kSnapshotHasChildren}},
      // The image or the snapshot is absent; the name is taken, by a sandbox or a foreign file.
      {Op::kCreateSandbox, {kImageNotFound, kSnapshotNotFound, kSandboxAlreadyExists}},
      {Op::kRemoveSandbox, {kSandboxNotFound, kSandboxStillRunning}},
      {Op::kOpen, {kSnapshotNotFound}},
      {Op::kGet, {kSnapshotNotFound}},
      {Op::kVerify, {kSnapshotNotFound}},
      // A directory is at the path of the archive (kInvalidArgument).
      {Op::kExport, {kSnapshotNotFound, kSnapshotImageMissing, kInvalidArgument}},
      {Op::kFlatten, {kSnapshotNotFound}},
      // An archive has all snapshots that its disk is backed by, but the image only on request.
      {Op::kFlattenAway, {kSnapshotImageMissing}},
      {Op::kGetSandbox, {kSandboxNotFound}},
      {Op::kStart, {kSandboxNotFound, kSandboxStillRunning}},
      {Op::kStop, {kSandboxNotFound}},
      {Op::kKill, {kSandboxNotFound}},
      // The snapshot may have been made from another image (kInvalidArgument).
      {Op::kRestore, {kSandboxNotFound, kSandboxStillRunning, kSnapshotNotFound, kInvalidArgument}},
  };
  return kTable;
}

}  // namespace

bool IsExpected(Op op, ErrorKind kind) {
  const auto kinds = Table().find(op);
  return kinds != Table().end() && std::ranges::find(kinds->second, kind) != kinds->second.end();
}

}  // namespace msb::soak
