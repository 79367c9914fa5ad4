// SPDX-License-Identifier: Apache-2.0
//
// Takes in snapshots from another machine: verifies all of them in a stage, and then publishes
// them, parents first. Import and Pull differ only in where the bytes come from.

#ifndef MSB_SRC_ARCHIVE_INTAKE_H_
#define MSB_SRC_ARCHIVE_INTAKE_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "src/archive/image_files.h"
#include "src/archive/incoming.h"
#include "src/archive/leftovers.h"
#include "src/archive/source_words.h"
#include "src/artifact/integrity.h"
#include "src/artifact/store.h"
#include "src/base/staging.h"

namespace msb::archive {

// An IntakeSpec describes the receiver of snapshots.
struct IntakeSpec {
  std::filesystem::path destination;     // The directory for the artifacts; created if absent.
  std::filesystem::path cache_dir;       // The directory of the image cache.
  std::optional<std::string> name = {};  // Name of the head's directory. Default: its identity.

  using FindArtifact = std::function<std::optional<artifact::Artifact>(const std::string& id)>;
  // Returns the snapshot with this digest if the receiver has it, so that it is not taken in again.
  // If find_present is null, a snapshot counts as present only if it is in the directory to which
  // it would be published.
  FindArtifact find_present = {};
  // Returns the snapshot with this digest or snapshot id, by which an arriving disk may be backed,
  // or nullopt if the receiver does not have it. If find_backing is null, the receiver has no such
  // snapshots.
  // Throws kSnapshotNotFound if a snapshot that the disk of this snapshot is backed by is missing.
  // Throws kIO if the receiver may have the snapshot but cannot read it.
  FindArtifact find_backing = {};
  // Receives warnings. May be null.
  std::function<void(std::string_view message)> log = {};
};

// A StagedDisk describes a disk that has arrived completely.
struct StagedDisk {
  std::string name = {};            // In messages, after SourceWords::part.
  std::uint64_t size = 0;           // Bytes, holes included.
  std::filesystem::path path = {};  // In the stage; empty if it was not kept.
  // Its integrity as computed while it arrived, if it was.
  std::optional<artifact::Integrity> integrity = {};
};

// Throws kSnapshotAlreadyExists, because the receiver already has the head that arrives.
[[noreturn]] void RefusePresent(const artifact::Artifact& head);

// An Intake holds the snapshots that arrive, their disks and their image files until they are
// published. To use it:
//   1. Add each snapshot.
//   2. Write each disk to OpenDisk or DiskPath, flush it, and call AcceptDisk. Write each image
//      file to OpenImageFile or AddImageFile.
//   3. Call snapshots().CheckArrived, snapshots().InOrder, CheckImages, FindPresent, CheckBacking
//      and Publish.
// If FindPresent is called before step 2, the disks of the snapshots that it finds need not arrive.
// Functions that check what has arrived throw kSnapshotIntegrity if it is damaged or hostile. The
// destructor deletes the stage, so nothing is left of what was not published.
//
// With a resume key, the stage is kept instead until it is published, discarded, or expires
// (base::Stage). The next Intake with this key continues: OpenDisk and OpenImageFile return the
// files that are left, whose content must be checked again.
class Intake {
 public:
  // spec must outlive the Intake. resume_key has 64 lower-case hex digits. Progress is not
  // reported.
  Intake(const Context& ctx, const IntakeSpec& spec, SourceWords words,
         std::optional<std::string> resume_key = {});

  // Throws kSnapshotAlreadyExists if the name in the spec is taken in the destination.
  void CheckNameFree() const;

  // Returns the stage. Creates it when it is first needed, so that most sources that are refused
  // leave no trace even for a moment. With a resume key, waits while another Intake with that key
  // exists, whose snapshots may then be present.
  // Throws kIO if it cannot be created.
  // Throws kCancelled if the Context ends first.
  const base::Stage& stage();
  // Deletes the stage of a resume key in the destructor.
  void Discard();
  IncomingSnapshots& snapshots() { return snapshots_; }
  const std::vector<std::string>& image_files() const { return image_files_; }

  // Adds the snapshot with this manifest, and writes the manifest to its directory in the stage.
  // document is the name of the manifest in messages. Sets IncomingSnapshot::present if the
  // directory to which the snapshot would be published has the same manifest.
  // Throws kSnapshotIntegrity if the manifest is malformed, does not belong to directory, or was
  // added before.
  // Throws kUnsupportedOperation if the snapshot is a checkpoint.
  // Throws kSnapshotAlreadyExists if the destination has anything else with the name of directory,
  // unless the head gets another name.
  IncomingSnapshot& Add(Layout layout, const std::string& directory, std::string_view document,
                        std::string_view bytes);
  // Writes a file of the snapshot's directory that is not a disk.
  void WriteText(const IncomingSnapshot& snapshot, const std::string& name,
                 std::string_view bytes) const;

  // Returns the path at which a disk of the snapshot is staged. Its directory may be absent.
  std::filesystem::path DiskPath(const IncomingSnapshot& snapshot, const std::string& file) const;
  // Opens the file at DiskPath, which has size bytes.
  StagedFile OpenDisk(const IncomingSnapshot& snapshot, const std::string& file,
                      std::uint64_t size) const;
  // Throws kSnapshotIntegrity unless a disk of this name and size can be the one that layer
  // records.
  void CheckSize(std::string_view name, std::uint64_t size, const artifact::Layer& layer) const;
  // Checks the size and the integrity that the manifest records of a disk, and the tables of a
  // qcow2 disk, whose backing file is remembered. Reads the disk if its integrity was not computed
  // with the recorded algorithm. Then the snapshot waits for this disk no longer.
  // Throws kUnsupportedOperation if a qcow2 disk has a feature that is not supported.
  void AcceptDisk(IncomingSnapshot& snapshot, const std::string& file,
                  const StagedDisk& staged) const;

  // Adds an image file, "KIND/FILE", and returns the path at which it must be written. For use
  // without a resume key, since an earlier Intake may have left anything there.
  // Throws kSnapshotIntegrity if an image cannot have such a file, or it was added before.
  std::filesystem::path AddImageFile(const std::string& file);
  // Does the same, and opens the file as OpenDisk does.
  StagedFile OpenImageFile(const std::string& file, std::uint64_t size);

  // Checks the image files as ArrivedImages::Check does.
  void CheckImages(const std::vector<IncomingSnapshot*>& order) const;
  // Finds the snapshots that the receiver has, and sets their IncomingSnapshot::present. They are
  // used instead of those that arrive. If the head is among them, returns it and calls Discard,
  // since only image files may be left to publish. Otherwise returns null. order has parents first.
  // Throws kSnapshotAlreadyExists if a directory in the destination has the manifest of a snapshot,
  // but cannot be opened.
  const artifact::Artifact* FindPresent(const std::vector<IncomingSnapshot*>& order);
  // Checks whether the disks can be booted, as archive::CheckBacking does.
  void CheckBacking(const std::vector<IncomingSnapshot*>& order,
                    const std::vector<std::string>& needed) const;

  // Moves the image files that the cache lacks into the cache, and then the snapshots that are not
  // present to the destination, and flushes them to disk. If the head is present, moves only the
  // image files, and returns only the head. Otherwise returns all snapshots with their current
  // paths, parents first, the head last. Sets IncomingSnapshot::present of snapshots that another
  // call has published meanwhile. Call once, after all checks.
  //
  // Nothing that was moved is moved back, because other calls may use it immediately. A failure or
  // a crash may therefore leave image files, and parents of the head. Each of these is complete,
  // and a visible head always has its parents and its image.
  // Throws kSnapshotAlreadyExists if a name is taken by anything but the same snapshot.
  // Throws kSnapshotIntegrity if a different image file has appeared in the cache.
  // Throws kIO if something cannot be moved or flushed. If only the last flush fails, the head
  // stays, and the message reports this.
  std::vector<artifact::Artifact> Publish(const std::vector<IncomingSnapshot*>& order);

 private:
  // Throws kSnapshotAlreadyExists with a message that this directory in the destination exists.
  [[noreturn]] void RefuseExisting(const std::string& directory) const;
  void CheckTarget(IncomingSnapshot& snapshot) const;
  std::optional<artifact::Artifact> FindSame(const IncomingSnapshot& snapshot,
                                             const std::string& directory) const;
  void CheckPresent(IncomingSnapshot& snapshot) const;
  void CheckIntegrity(const StagedDisk& staged, const artifact::Layer& layer) const;
  std::string CheckQcow2(const StagedDisk& staged) const;
  ArrivedImages Images() const;
  const std::string& TargetOf(const IncomingSnapshot& snapshot, const IncomingSnapshot& head) const;
  // Throws kSnapshotAlreadyExists if another snapshot is to be published under the head's name.
  void CheckHeadName(const std::vector<IncomingSnapshot*>& order) const;
  bool FindAppeared(IncomingSnapshot& snapshot, const std::string& target) const;
  void Move(const std::vector<IncomingSnapshot*>& order);

  const Context ctx_;  // Without progress.
  const IntakeSpec& spec_;
  const SourceWords words_;
  const std::optional<std::string> resume_key_;
  std::optional<base::Stage> stage_;
  IncomingSnapshots snapshots_;
  std::vector<std::string> image_files_;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_INTAKE_H_
