// SPDX-License-Identifier: Apache-2.0
//
// Tracks the snapshots of an archive while the archive is read: which disks have not arrived, and
// how the snapshots are related.
//
// Members may arrive in any order. All functions throw kSnapshotIntegrity if the archive is
// damaged.

#ifndef MSB_SRC_ARCHIVE_INCOMING_H_
#define MSB_SRC_ARCHIVE_INCOMING_H_

#include <deque>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "src/archive/member.h"
#include "src/artifact/manifest.h"
#include "src/artifact/store.h"

namespace msb::archive {

struct IncomingSnapshot {
  std::string directory = {};  // The artifact's name in the archive and in the destination.
  std::string id = {};         // The digest; kLayered: the snapshot id.
  artifact::Manifest manifest = {};
  std::string manifest_path = {};      // The path of the manifest in the archive.
  std::string manifest_digest = {};    // SHA-256 of the manifest's bytes.
  std::set<std::string> awaited = {};  // The disks that have not arrived.
  // The backing file that the header of its qcow2 disk names; empty if it names none.
  std::string backing_file = {};
  // The artifact of this snapshot that the receiver already has, if any. If set, the snapshot is
  // not imported.
  std::optional<artifact::Artifact> present = {};
};

class IncomingSnapshots {
 public:
  // Adds the snapshot whose manifest is the archive member at member_path, with these bytes.
  // Throws kUnsupportedOperation if it is a checkpoint.
  IncomingSnapshot& Add(Layout layout, const MemberPath& path, std::string_view member_path,
                        std::string_view bytes);
  // Returns the snapshot in this directory, or null if its manifest has not arrived.
  IncomingSnapshot* Find(std::string_view directory);
  // Returns the snapshots whose manifests have arrived and that wait for this disk.
  std::vector<IncomingSnapshot*> Awaiting(const MemberPath& path);

  bool empty() const { return snapshots_.empty(); }

  // Returns all snapshots, parents first, the head last. Call when all members have arrived.
  // Throws kSnapshotIntegrity if a disk is missing, or the snapshots are not one chain of parents.
  std::vector<IncomingSnapshot*> InOrder();

 private:
  std::deque<IncomingSnapshot> snapshots_;  // In order of arrival; addresses are stable.
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_INCOMING_H_
