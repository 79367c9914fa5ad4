// SPDX-License-Identifier: Apache-2.0
//
// Implements the sealing protocol, by which a snapshot takes over the qcow2 disk of a sandbox of a
// directory backend.
//
//   1. Begin makes the upper read-only, links it under a name with the snapshot's digest, makes an
//      empty overlay that is backed by that name, and saves a record with the overlay as the upper
//      and a pending seal. If a step fails, the steps before it are undone. Where the file system
//      has no links, the upper is renamed instead, after the record has been saved. If
//      SealSpec::whole_disk is set, that file is linked or copied under a name with the digest
//      instead, and the upper is not changed.
//   2. The caller publishes the artifact, which links the former upper.
//   3. If the artifact was published, RollForward removes the pending seal from the record, and
//      then the former upper's own name or, with whole_disk, the former upper and its backing
//      files. If it was not published, RollBack makes the former upper the upper again.
//
// After a crash between steps 1 and 3, the next operation on the sandbox resolves the pending seal,
// depending on whether the artifact was published. Rolling back never loses data and never changes
// a snapshot, even if the artifact was published after all: the former upper has all data that the
// sandbox wrote, and an upper that has another hard link is replaced by a copy (OwnUpper in
// directory_disk.h) before a VM writes to it.
//
// Every function requires that the caller holds the lock of the sandbox's directory.

#ifndef MSB_SRC_VMM_SEAL_H_
#define MSB_SRC_VMM_SEAL_H_

#include <filesystem>
#include <functional>
#include <string>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/base/file.h"
#include "src/base/home.h"
#include "src/vmm/directory_record.h"
#include "src/vmm/snapshot_queries.h"
#include "src/vmm/warn.h"

namespace msb::vmm {

// The sandbox that is sealed. The caller holds the lock of its directory.
struct SealedSandbox {
  int dir;                     // Its open directory.
  std::filesystem::path path;  // The path of that directory.
  DirectoryRecord& record;
  const base::Home& home;  // The home of the client.
};

// Returns the disk of the snapshot that spec describes as a backing file of the sandbox. path is
// the directory of the sandbox, and upper is the former upper.
BackingFile SnapshotFile(const std::filesystem::path& path, const SealSpec& spec,
                         const Disk& upper);

// Resolves a pending seal in the record of the sandbox: rolls the seal forward if the overlay and
// the sealed file exist and the artifact was published, and back otherwise. Changes the record in
// memory only, so the caller must save it before it removes files that the record no longer names.
// Returns false if no seal is pending.
// Throws what published throws.
// Throws kIO if the former upper is not a regular file under either of its names.
// Throws kInvalidConfig if a seal is pending but the record has no backing file.
bool ResolveSeal(const SealedSandbox& sandbox, const PublishedPredicate& published);

// A Sealing represents a seal in progress.
class Sealing {
 public:
  // Durably replaces the saved record.
  using Save = std::function<void()>;

  // Seals the sandbox. Its record has no pending seal; every step updates it. warn receives the
  // failures that a later operation on the sandbox repairs.
  Sealing(const SealedSandbox& sandbox, Save save, Warn warn);

  // Performs step 1. Returns the file that the sandbox is backed by from now on. If it throws, the
  // sandbox is as it was before.
  Disk Begin(const Context& ctx, const SealSpec& spec);
  // RollForward and RollBack perform step 3, and pass failures to warn.
  void RollForward() noexcept;
  void RollBack() noexcept;

 private:
  void LinkAndRecord(const Context& ctx, const SealSpec& spec);
  void Undo() noexcept;
  void Unlink();
  // Restores the permissions of the former upper, unless it has more hard links than before the
  // seal.
  void RestoreMode();

  const int dir_;
  const std::filesystem::path path_;
  DirectoryRecord& record_;
  const base::Home& home_;
  const Save save_;
  const Warn warn_;
  const DirectoryRecord before_;
  base::UniqueFd upper_ = {};   // The former upper.
  base::FileStamp stamp_ = {};  // Its stamp before the seal began.
  BackingFile base_ = {};       // The file that the new overlay is backed by.
  std::string overlay_ = {};    // The new overlay's name.
  bool renames_ = false;        // No links are possible: the former upper is renamed.
  bool saving_ = false;         // The record on disk may have the pending seal.
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_SEAL_H_
