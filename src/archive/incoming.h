// SPDX-License-Identifier: Apache-2.0
//
// Tracks the snapshots of an archive or a registry while they arrive: which disks have not arrived,
// and how the snapshots are related.
//
// Manifests and disks may arrive in any order. All functions throw kSnapshotIntegrity if their
// source is damaged.

#ifndef MSB_SRC_ARCHIVE_INCOMING_H_
#define MSB_SRC_ARCHIVE_INCOMING_H_

#include <deque>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/archive/member.h"
#include "src/archive/source_words.h"
#include "src/artifact/manifest.h"
#include "src/artifact/store.h"

namespace msb::archive {

struct IncomingSnapshot {
  std::string directory = {};  // The artifact's name in an archive and in the destination.
  std::string id = {};         // The digest; kLayered: the snapshot id.
  artifact::Manifest manifest = {};
  std::string manifest_path = {};      // The path of the manifest in an archive, for messages.
  std::string manifest_digest = {};    // SHA-256 of the manifest's bytes.
  std::set<std::string> awaited = {};  // The disks that have not arrived.
  // The backing file that the header of its qcow2 disk names; empty if it names none.
  std::string backing_file = {};
  // The artifact of this snapshot that the receiver already has, if any. If set, the snapshot is
  // not published.
  std::optional<artifact::Artifact> present = {};
};

// Returns the layer of the snapshot that is stored in file, which must exist.
const artifact::Layer& LayerOf(const IncomingSnapshot& snapshot, std::string_view file);

class IncomingSnapshots {
 public:
  explicit IncomingSnapshots(SourceWords words) : words_(std::move(words)) {}

  // Adds the snapshot with this manifest. directory must be DirectoryOf the snapshot; kLayered: its
  // snapshot id. document is the name of the manifest in messages.
  // Throws kSnapshotIntegrity if the directory does not match, or was added before.
  // Throws kUnsupportedOperation if it is a checkpoint.
  IncomingSnapshot& Add(Layout layout, const std::string& directory, std::string_view document,
                        std::string_view bytes);
  // Returns the snapshot in this directory, or null if its manifest has not arrived.
  IncomingSnapshot* Find(std::string_view directory);
  // Returns the snapshots whose manifests have arrived and that wait for this disk.
  std::vector<IncomingSnapshot*> Awaiting(const MemberPath& path);

  bool empty() const { return snapshots_.empty(); }

  // Throws kSnapshotIntegrity if a disk has not arrived.
  void CheckArrived() const;
  // Returns all snapshots, parents first, the head last. Call when all manifests have arrived.
  // Throws kSnapshotIntegrity if the snapshots are not one chain of parents.
  std::vector<IncomingSnapshot*> InOrder();

 private:
  const SourceWords words_;
  std::deque<IncomingSnapshot> snapshots_;  // In order of arrival; addresses are stable.
  std::set<std::string> directories_;       // Those of snapshots_.
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_INCOMING_H_
