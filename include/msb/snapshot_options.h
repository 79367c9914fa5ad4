// SPDX-License-Identifier: Apache-2.0
//
// The options of the functions of Snapshot, and the results of Snapshot::Usage.

#ifndef MSB_SNAPSHOT_OPTIONS_H_
#define MSB_SNAPSHOT_OPTIONS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "msb/context.h"
#include "msb/disk.h"
#include "msb/vmm/backend.h"

namespace msb {

// The options of Create, and the destination of Squash. Exactly one of name and path must be set.
struct SnapshotCreateOptions {
  // The name of the snapshot, which becomes a directory in the snapshots directory. It consists of
  // 1 to 255 bytes of UTF-8. It must not contain '/', '\', ':' or control characters, and must not
  // begin with '.' or '~'.
  std::string name = {};
  // The path of the artifact directory to create. Missing parent directories are created, and
  // removed again if the call fails. In the snapshots directory, the last part must be a valid
  // name. No part may begin with ".msb-stage-", ".msb-pull-", ".msb-aside-" or ".msb-copied-",
  // since directories with such names are deleted if they seem to be left by an interrupted call.
  // If Create makes a snapshot of a qcow2 disk, the absolute path must be UTF-8.
  std::string path = {};
  // The labels of the snapshot, in UTF-8 and at most 1 MiB in total. Default: none.
  std::map<std::string, std::string> labels = {};
  // Atomically replaces an existing artifact at the destination. Never replaces anything else, not
  // even a symbolic link, nor a snapshot whose disk backs the disk of another snapshot or sandbox.
  // If it backs the disk of the source sandbox, the new snapshot is a complete disk. Concurrent
  // calls wait for each other, and the last call to complete replaces the snapshots of the others.
  // Default: false.
  //
  // On a file system without RENAME_EXCHANGE (NFS, 9p, some FUSE), and for an artifact in a lower
  // layer of overlayfs, the snapshot is absent for a moment during the replacement. After a crash
  // at that moment it is absent or incomplete until the next call that creates or removes something
  // in the same directory restores it. See docs/environments.md.
  bool force = false;
  // Records a hash of the content, so that Verify can check it: a BLAKE3 Merkle tree or, in the
  // manifest generation, a SHA-256, which is slower and reads holes as zeros. Default: false.
  bool record_integrity = false;
  // Permits a snapshot of a sandbox that runs, whose guest continues to run. See Snapshot::Create.
  // Has no effect on a sandbox that does not run, nor on Squash. Default: kOff.
  LiveSnapshot live = LiveSnapshot::kOff;
};

// The options of Export.
struct SnapshotExportOptions {
  // Includes every snapshot that the snapshot descends from. Those that its disk is backed by are
  // always included. Default: false.
  bool with_parents = false;
  bool with_image = false;  // Includes the base image. Default: false.
  bool plain_tar = false;   // Writes an uncompressed .tar instead of a .tar.zst. Default: false.
  // Writes the holes of an artifact of the manifest generation as holes, which releases before
  // 0.6.7 cannot read, instead of as zeros. The holes of other artifacts are always written as
  // holes. Default: false.
  bool sparse = false;
  // zstd compression level, 1 to 19; higher is slower and smaller. Default: 3.
  int level = 3;
  // Number of compression threads, of which at most 8 are used. Default: 0, one for each core.
  unsigned threads = 0;
  // The name, path or digest of a snapshot that the receiver already has and that the exported one
  // descends from. That snapshot, and every snapshot that it descends from or is backed by, is left
  // out. Import refuses the archive if the snapshot is needed but missing at the receiver. Released
  // runtimes refuse every archive that records such a need; the layout of the manifest generation
  // cannot record it. A snapshot that is given by its digest need not be in this home. Default:
  // nothing is left out.
  std::string since = {};
};

// The options of Import.
struct SnapshotImportOptions {
  // The name of the head and of its directory. The rules of SnapshotCreateOptions::name apply.
  // Default: the head's identity, as in released runtimes. Import ignores the name that the archive
  // suggests, as they do.
  std::string name = {};
};

// The options of Flatten.
struct SnapshotFlattenOptions {
  DiskFormat format = DiskFormat::kRaw;  // The format of the file to write. Default: kRaw.
};

// The space that a snapshot takes; see Snapshot::Usage.
struct SnapshotUsage {
  std::string digest;               // The snapshot's digest.
  std::string path;                 // The artifact directory.
  std::optional<std::string> name;  // Its name, as that of SnapshotHandle.
  std::uint64_t apparent = 0;       // The sizes of its files in bytes, holes included.
  // The bytes that its files and directories occupy on the disk, as du counts them.
  std::uint64_t allocated = 0;
  // The bytes that removing the snapshot alone would free. Files that have another hard link, such
  // as a disk that backs the disk of a sandbox, do not count, nor do blocks that other files share
  // (reflinks), as far as the file system reports them (FIEMAP: btrfs, XFS, bcachefs). So the sum
  // for several snapshots may be less than removing all of them frees.
  std::uint64_t exclusive = 0;
};

// The options of Prune. At least one of keep_last, older_than and labels must be set. A snapshot in
// the snapshots directory is removed if every option that is set permits it; snapshots elsewhere
// are neither counted nor removed.
struct SnapshotPruneOptions {
  // Keeps this many of the newest snapshots, and every copy of them; 0 keeps none. Default: not
  // limited by number.
  std::optional<std::size_t> keep_last = std::nullopt;
  // Removes only snapshots that were created at least this long ago. Must not be negative. Default:
  // not limited by age.
  std::optional<SaturatingDuration<std::chrono::seconds>> older_than = std::nullopt;
  // Considers only snapshots that have all of these labels; other snapshots are neither counted by
  // keep_last nor removed. Default: empty, which considers all snapshots.
  std::map<std::string, std::string> labels = {};
  bool dry_run = false;  // Removes nothing. Default: false.
};

}  // namespace msb

#endif  // MSB_SNAPSHOT_OPTIONS_H_
