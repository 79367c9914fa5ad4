// SPDX-License-Identifier: Apache-2.0
//
// Implements the protocol of live snapshots, by which a snapshot takes over the qcow2 disk of a
// sandbox of a directory backend while its VM runs.
//
//   1. Switch creates an empty overlay, saves a record with a pending switch to it, and lets the VM
//      write to it. From then on, nothing writes to the upper, and Switch makes it read-only.
//   2. Link links the upper under a name with the snapshot's digest, and saves a record with the
//      overlay as the upper, backed by that name. Where the file system has no links, the upper is
//      renamed instead, after the record has been saved.
//   3. The caller publishes the artifact, which links the former upper.
//   4. Finish names the file that backs the overlay in the overlay's header, and saves a record
//      without a pending switch. If the artifact was not published, the former upper keeps its own
//      name, under which only the sandbox has it.
//
// At every moment from the first record to the last, what the guest sees is the overlay on top of
// the former upper, or the upper alone, which is the same as long as the overlay is empty. So after
// a crash of this process, of the VM or of both, the next operation on the sandbox can finish the
// protocol without loss: Resume if the VM runs, ResolveSwitch if it has ended.
//
// Every function requires that the caller holds the lock of the sandbox's directory.

#ifndef MSB_SRC_VMM_LIVE_SEAL_H_
#define MSB_SRC_VMM_LIVE_SEAL_H_

#include <optional>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/vmm/live_disk.h"
#include "src/vmm/seal.h"
#include "src/vmm/snapshot_queries.h"

namespace msb::vmm {

// How the files of a sandbox change when a pending switch is resolved.
struct SwitchedFiles {
  std::string overlay;            // Which file's header must name backing_file. May be empty.
  std::string backing_file = {};  // The file that backs it.
  std::string renamed = {};       // The name that backing_file has until now, or empty.
};

// Resolves a pending switch of a sandbox whose VM has ended, in memory: changes the record. The
// caller must then call ChangeFiles and save the record, in this order, before it removes files
// that the record no longer names. Nothing is lost if it does not. Returns nullopt if no switch is
// pending. Throws what published throws. Throws kIO or kSnapshotIntegrity if the overlay cannot be
// read.
std::optional<SwitchedFiles> ResolveSwitch(const SealedSandbox& sandbox,
                                           const PublishedPredicate& published);

// Changes the files of a sandbox whose VM has ended, whose pending switch was resolved. Throws kIO
// or kSnapshotIntegrity if a file cannot be read or changed.
void ChangeFiles(const SealedSandbox& sandbox, const SwitchedFiles& files);

// A LiveSealing represents a live snapshot in progress.
class LiveSealing {
 public:
  using Save = Sealing::Save;

  // warn receives the failures that a later operation on the sandbox repairs.
  LiveSealing(const SealedSandbox& sandbox, LiveDisk& disk, Save save, Warn warn);

  // Finishes what an earlier call that was interrupted has begun.
  void Resume(const Context& ctx, const PublishedPredicate& published);

  // Performs step 1. Returns how consistent the upper is. If it throws, the VM writes to the
  // recorded upper, or a switch is pending.
  std::string_view Switch(const Context& ctx, LiveSnapshot level);
  // Performs step 2. Returns the file of the snapshot. Changes nothing if spec.whole_disk is set.
  Disk Link(const SealSpec& spec);
  // Performs step 4. A failure is passed to warn, and leaves the switch pending.
  void Finish(bool published) noexcept;

 private:
  void MakeOverlay(const std::string& overlay);
  // Ends a pending switch that did not take place.
  void Drop();
  void TryDrop(const std::string& overlay) noexcept;
  void Adopt(bool published);
  // Names the backing file of the overlay, whether or not the VM still runs.
  void SetBackingFile(const SwitchedFiles& files);

  const SealedSandbox sandbox_;
  DirectoryRecord& record_;
  LiveDisk& disk_;
  const Save save_;
  const Warn warn_;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_LIVE_SEAL_H_
