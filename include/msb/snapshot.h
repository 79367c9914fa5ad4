// SPDX-License-Identifier: Apache-2.0
//
// Snapshot is the entry point of the snapshot API. It mirrors the Snapshot value of the
// microsandbox Go SDK: names, order of arguments and semantics are the same. docs/api.md maps one
// API to the other.
//
//   auto snap = msb::Snapshot::Create(ctx, "baseline", {.name = "after-pip-install"});
//   auto worker = msb::CreateSandbox(ctx, "worker", {msb::WithSnapshot("after-pip-install")});
//
// Every function may throw kCancelled (see Context) and kIO, and may be called from any thread at
// any time, also for the same snapshot or sandbox. Several processes may use the same home.
// Concurrent calls behave as follows:
//
//   A snapshot is read while it is replaced or removed
//     Verify, Export, Flatten, Squash   continue to read the snapshot that they opened
//     CreateSandbox(WithSnapshot),      use the new snapshot; throw kSnapshotNotFound if the
//     Restore                           snapshot was removed
//     Open, Get, Remove                 find the old or the new snapshot; throw kSnapshotNotFound
//                                       if the snapshot was removed
//     List, ListDir, Reindex, Usage     show each snapshot as it was before or after the change
//     Prune                             skips a snapshot that is gone, and keeps one that another
//                                       snapshot or a sandbox depends on by then
//   Several calls create a snapshot with the same name
//     Create, Squash, Import            one call creates it; the others throw
//                                       kSnapshotAlreadyExists
//     Create, Squash, with force        the last call to complete replaces the other snapshots
//   A sandbox is used while Create makes a snapshot of it
//     Exec; Stop, Kill                  live snapshot: runs meanwhile; wait
//     Create                            qcow2 disk: waits, then adds the next snapshot to the
//                                       chain; raw disk: both calls read the disk
//     StartSandbox                      qcow2 disk: waits; raw disk: starts the sandbox, and Create
//                                       throws kSnapshotSandboxRunning
//     RemoveSandbox                     qcow2 disk: waits; raw disk: removes the sandbox, and
//                                       Create throws kSandboxNotFound
//     CreateSandbox(WithReplace)        qcow2 disk: waits; raw disk: replaces the sandbox, and
//                                       Create makes a snapshot of the new one, or throws
//                                       kSnapshotSandboxRunning if that is running
//     Restore                           qcow2 disk: waits; raw disk: replaces the disk, and Create
//                                       makes a snapshot of the former or of the new disk
//   Several calls start, stop, restore, replace or remove the same sandbox
//     all                               wait for each other; each sees the results of those before
//     Restore                           throws kSandboxStillRunning if the sandbox was started, and
//                                       kSandboxNotFound if it was removed; the last call to
//                                       complete decides which snapshot the sandbox has
//
// A call never reports such a change as damage, and never returns the manifest of one snapshot with
// the disk of another. A call that waits stops waiting when its Context is done. All of this also
// holds between processes, and if other software renames or unlinks files of a home. If other
// software writes to a file of a snapshot, Verify detects this, provided that the integrity of the
// file is recorded.
//
// Calls wait for each other by means of locks (flock(2)). Locks do not reach other hosts on NFS,
// other mounts on FUSE and overlayfs, or other processes on a file system without locks; in these
// cases, calls that replace or remove the same snapshot or sandbox do not exclude each other. Where
// a file system lacks atomic renames (renameat2(2)), a snapshot or sandbox is absent for a moment
// while it is replaced; and an empty directory that other software creates at the destination of a
// new snapshot or sandbox, at the moment of its publication, is replaced. See docs/environments.md.
// On the microsandbox backend, it is up to the runtime to exclude calls that use the same sandbox.
//
// The functions check the following:
//
//   List, Get            nothing; they return rows of the index
//   Open, ListDir        the manifest, whose digest they compute; that the disk is a regular file
//                        of the recorded size
//   Verify               what Open checks; the content of the disk and of every file that it is
//                        backed by, as far as a manifest or the digest of the image records it
//   CreateSandbox,       what Open checks, for every snapshot of the chain; the qcow2 metadata that
//   Restore, Export,     they read; that no file changes while it is read. They do not check the
//   Flatten, Squash      content
//   Import               everything in the archive: structure, manifests, recorded hashes. It does
//                        not check that the layers of an image match the digest of the image
//   Remove, Prune        if given a digest, that the artifact has that digest; unless force is set,
//                        that no snapshot or sandbox depends on the artifact

#ifndef MSB_SNAPSHOT_H_
#define MSB_SNAPSHOT_H_

#include <concepts>
#include <filesystem>
#include <string>
#include <vector>

#include "msb/artifact.h"
#include "msb/client.h"
#include "msb/context.h"
#include "msb/export.h"
#include "msb/handle.h"
#include "msb/registry.h"
#include "msb/snapshot_options.h"

namespace msb {

class MSB_EXPORT Snapshot {
 public:
  Snapshot() = delete;

  // Creates a snapshot of the disk of a sandbox that is not running, or that is running if
  // SnapshotCreateOptions::live permits it (see below). The artifact is built under a hidden name,
  // flushed to disk and published by one rename, so after a crash it exists completely or not at
  // all. Then it is added to the index; a failure to add it is logged, not thrown. If the call
  // fails, a sandbox that does not run is as it was before.
  //
  // A raw disk is copied with its holes; where the file system can share blocks (reflink), no data
  // is copied. A qcow2 disk is taken over in constant time, regardless of its size: the sandbox
  // continues on an empty overlay, and the snapshot holds the data that was written since the
  // previous snapshot, which becomes its parent. If integrity is recorded, only that data is read.
  // Meanwhile, other calls that use the sandbox wait, so a progress function must not make such
  // calls. If the disk cannot be hard linked into the artifact, because the file system has no hard
  // links or the artifact is on another file system, the disk is copied (docs/environments.md).
  //
  // If a snapshot that takes over a qcow2 disk could not be booted later, the complete disk is
  // written out instead, as one raw file without backing files. This is the case if
  //   * force replaces a snapshot that the disk is backed by,
  //   * the image that the disk is backed by is no longer in the home,
  //   * a snapshot that the disk is backed by is neither in the home, nor in the index, nor beside
  //     the new snapshot, nor in the artifact directory that the sandbox was booted from or last
  //     sealed into, or
  //   * the disk is backed by 200 files already.
  // The sandbox then continues on an overlay of that raw disk, so the next snapshot takes constant
  // time again. The disk of a sandbox that a 0.7 runtime restored is always written out as one raw
  // file.
  //
  // If live is not kOff and the sandbox runs, its guest continues to run. The guest agent (package
  // qemu-guest-agent in the guest) freezes the guest's file systems, QEMU exchanges the writable
  // disk for an empty overlay, and the agent thaws the file systems; see LiveSnapshot. This takes
  // the same time for a disk of any size. SnapshotArtifact::Consistency returns what was achieved.
  // If this process ends while the file systems are frozen, another process thaws them. If the call
  // fails after the exchange, or if the snapshot must be a complete disk, the sandbox continues on
  // the overlay without loss, and its further live snapshots are complete disks, until a snapshot
  // of the stopped sandbox begins a new chain. Only the qemu backend supports live snapshots, and
  // only for qcow2 disks.
  //
  // Throws kInvalidArgument unless exactly one of name and path is set; if labels are invalid or
  // contain the reserved key "msb.consistency"; if path is inside a snapshot or in the sandboxes,
  // cache or db directory of the home; or if the disk is qcow2 and the absolute path of the
  // artifact is not UTF-8.
  // Throws kInvalidConfig if the name is invalid, or if the sandbox has a damaged record, no pinned
  // image or no disk of its own.
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws kSnapshotSandboxRunning if the sandbox is running and live is kOff; if the size, the
  // mtime or, three times in a row, the ctime of its disk changes meanwhile; or if a process on
  // this machine, in any container, has the disk open for writing or mapped writable (MAP_SHARED)
  // when reading the disk begins or ends, and does not close or unmap it within half a second. Such
  // processes are detected by means of a lease (fcntl(2), F_SETLEASE). Where a lease does not
  // reveal all of them (network file systems, FUSE, overlayfs, disks of another user), the disk is
  // flushed first, so that later writes change its modification time; stores through a mapping of
  // a disk on tmpfs are not detected there. Writers on another host are not detected.
  // Throws kSnapshotAlreadyExists if the destination exists, unless force replaces an artifact.
  // Throws kSnapshotHasChildren if force would replace a snapshot whose disk backs that of another
  // sandbox or snapshot. The message names them. Children with a complete disk of their own do not
  // count. Throws kIO if force would replace a snapshot while a sandbox, or an artifact in the
  // snapshots directory, that may need its disk cannot be read; or if the VM of a live snapshot
  // ends before the disk is exchanged. Throws kUnsupportedOperation if live is not kOff, the
  // sandbox is running, and the backend does not support it, the disk is raw or is backed by 200
  // files already, the VM cannot be reached from here, or live is kFilesystemConsistent and the
  // guest's file systems cannot be frozen.
  static SnapshotArtifact Create(const Context& ctx, const std::string& source_sandbox,
                                 const SnapshotCreateOptions& options,
                                 const Client& client = Client::Default());

  // Opens an artifact. A string that contains '/' or begins with '.' or '~' is a path; any other is
  // a name in the snapshots directory, or "GROUP:NAME" or "GROUP" (the group's head) in a 0.7 home.
  // Checks the manifest, and that the upper is a regular file of the recorded size; does not read
  // the content (see SnapshotArtifact::Verify). If the artifact is in the snapshots directory but
  // not in the index, adds it to the index; logs a failure to do so.
  //
  // Throws kSnapshotNotFound if the artifact does not exist.
  // Throws kSnapshotIntegrity if it is damaged.
  // Throws kInvalidConfig if the string is neither a path nor a valid name.
  [[nodiscard]] static SnapshotArtifact Open(const Context& ctx, const std::string& path_or_name,
                                             const Client& client = Client::Default());

  // Returns the index row of a snapshot, given by name, digest or path. If several artifacts have
  // the digest, prefers artifacts with a valid manifest and, among these, artifacts in the home or
  // in the snapshots directory. Works without a writable index, as List does.
  // Throws kSnapshotNotFound if the snapshot is not in the index, and kIO as List does.
  [[nodiscard]] static SnapshotHandle Get(const Context& ctx, const std::string& name_or_digest,
                                          const Client& client = Client::Default());

  // Returns all snapshots in the index, newest first. Does not access the artifacts, except in a
  // home that was moved or copied together with the database of a runtime, whose rows hold absolute
  // paths. In such a home, each row stands for the artifact with the same name and digest in this
  // home, and rows that would lead into the original home are left out.
  //
  // If the index cannot be opened or written (read-only file system, full disk, home of another
  // user), it is read into memory and brought up to date there from the artifacts in the snapshots
  // directory, and a warning is logged. If the library's own index is damaged or not a regular
  // file, it is renamed to db/snapshots.db.damaged-*, of which the last three are kept, and rebuilt
  // from the artifacts, and a warning is logged.
  //
  // Throws kIO if the db/msb.db of a runtime is damaged or not a regular file. The message names
  // the next step.
  [[nodiscard]] static std::vector<SnapshotHandle> List(const Context& ctx,
                                                        const Client& client = Client::Default());

  // Returns the artifacts in the subdirectories of dir ("" means the snapshots directory), and
  // those of the groups there, sorted by the names of their directories. Skips hidden directories,
  // symbolic links and everything that is not an artifact; logs and skips malformed artifacts.
  // Returns an empty vector if dir does not exist. Does not access the index.
  [[nodiscard]] static std::vector<SnapshotArtifact> ListDir(
      const Context& ctx, const std::filesystem::path& dir,
      const Client& client = Client::Default());

  // Deletes an artifact, given by name, digest or path, and its index row. A damaged artifact can
  // be deleted by name or path. In a copy of a home, a name or digest refers to the snapshot in the
  // copy. If several artifacts have the same digest, one of them is deleted: the one with the given
  // name or path or, if a digest is given, the one that Get returns.
  //
  // If the index cannot be written, as on a full disk, the artifact is deleted before its row; a
  // failure to delete the row is then logged. If ctx ends while a large artifact is being deleted,
  // the call succeeds, and the next call that creates or removes something in the same directory
  // deletes the rest. On network file systems, FUSE and overlayfs, calls on other hosts or mounts
  // delete the rest only if it has not changed for 24 hours (docs/environments.md).
  //
  // Throws kCancelled, with nothing changed, if ctx ends while another call uses the artifact or
  // the index.
  // Throws kSnapshotHasChildren if the disk of a sandbox is backed by the snapshot, or if a
  // snapshot in the index, in the snapshots directory or beside this one has it as its parent,
  // unless force is set or the snapshots directory has another artifact with its digest. If force
  // is set, such a sandbox keeps its disk, and its next snapshot has the complete disk.
  // Throws kIO, unless force is set, if a sandbox or a snapshot that may need it cannot be read.
  // Throws kSnapshotNotFound if the snapshot does not exist, or the directory is not an artifact.
  // Throws kInvalidArgument if the path is a symbolic link.
  // Throws kUnsupportedOperation for a member of a 0.7 group: only the 0.7 runtime can remove it.
  // Throws kIO if its files cannot be deleted. The snapshot and its row no longer exist in this
  // case. The message names the hidden directory that holds the files; the next call that creates
  // or removes something in the same directory tries again.
  static void Remove(const Context& ctx, const std::string& path_or_name, bool force,
                     const Client& client = Client::Default());

  // Rebuilds the index rows of the artifacts in dir ("" means the snapshots directory) in one
  // transaction, and drops the rows of artifacts that no longer exist there. Returns the number of
  // artifacts that it indexed. Logs and skips artifacts that cannot be read.
  // Throws kIO if the index cannot be written, or if dir is absent or not a directory, unless it is
  // the snapshots directory or the index has rows of artifacts that were in it.
  static std::uint32_t Reindex(const Context& ctx, const std::filesystem::path& dir,
                               const Client& client = Client::Default());

  // Resets a stopped sandbox to a snapshot, given by name or path as for Open: replaces the
  // sandbox's disk with a disk that is made from the snapshot. The snapshot must have the image of
  // the sandbox, but need not have been made from it. Changes made since the last snapshot are
  // lost. The sandbox keeps its name, its labels, its settings and the format of its disk. If the
  // snapshot's disk is smaller than the sandbox's, as after an enlargement with oci_upper_size_mib,
  // the sandbox keeps the larger size, which the guest sees as unused space at the end of the disk.
  //
  // A qcow2 disk is restored in constant time, regardless of its size. A raw disk is copied, or
  // shares the blocks of the snapshot where the file system can (reflink). The next snapshot of the
  // sandbox has this snapshot as its parent.
  //
  // The former disk is kept until the new one is complete and recorded, so there must be space for
  // both. A call that fails leaves the sandbox as it was, and after a crash the sandbox has either
  // the former or the new disk. A sandbox whose disk is lost or damaged can be restored too.
  //
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws kSandboxStillRunning if it is running or another program has its disk open for writing,
  // or kUnsupportedOperation if it is running under another backend.
  // Throws kSnapshotNotFound if the snapshot, or a parent that its disk is backed by, is missing.
  // Throws kSnapshotImageMissing if the image that its disk is backed by is missing.
  // Throws kSnapshotIntegrity if a file is damaged.
  // Throws kInvalidArgument if the snapshot was made from another image than the sandbox. The
  // message names both.
  // Throws kInvalidConfig if the record of the sandbox is damaged.
  // Throws kUnsupportedOperation for a checkpoint, a disk of several layers, or an unsupported
  // qcow2 feature; and on the microsandbox backend, whose runtime has no lock that would keep it
  // from starting the sandbox meanwhile.
  static void Restore(const Context& ctx, const std::string& sandbox,
                      const std::string& name_or_path, const Client& client = Client::Default());

  // Returns the space that each snapshot in the index takes, newest first. Snapshots whose
  // artifacts are absent are left out, and those that cannot be read too, with a warning. Reads no
  // content, so the time depends on the number of files and extents.
  // Throws as List does.
  [[nodiscard]] static std::vector<SnapshotUsage> Usage(const Context& ctx,
                                                        const Client& client = Client::Default());

  // Removes the indexed snapshots in the snapshots directory that the options describe, children
  // before parents. Returns the handles of those that were removed, or, with dry_run, of those that
  // would be, in this order. Like Remove without force, never removes a snapshot that backs the
  // disk of a sandbox, or that is the parent of one that is kept. Skips a snapshot that another
  // call removes, or gives a child, meanwhile. Snapshots that are absent, damaged or symbolic links
  // are neither counted by keep_last nor removed; members of 0.7 groups are only counted.
  //
  // Throws kInvalidArgument unless keep_last, older_than or labels is set, or if older_than < 0.
  // Throws kCancelled if ctx ends. Snapshots that were removed before stay removed.
  // Throws kIO as List does; before it removes anything, if a snapshot or sandbox that may need one
  // of them cannot be read; and, after it has tried all others, if one cannot be removed.
  static std::vector<SnapshotHandle> Prune(const Context& ctx, const SnapshotPruneOptions& options,
                                           const Client& client = Client::Default());

  // Writes a snapshot, given by name or path as for Open, into an archive at out_path, in the
  // layout of its generation (docs/formats.md). A 0.7 snapshot of one layer is written as a
  // descriptor, and therefore has another digest in the archive. The archive depends only on the
  // snapshot and the options: exporting again gives the same bytes. Holes are not read. The content
  // is not verified (see SnapshotArtifact::Verify); Import verifies what it reads.
  //
  // The archive carries the snapshot and every snapshot that its disk is backed by, so it can be
  // booted on any machine that has its image. The option with_parents adds the other snapshots that
  // it descends from, with_image adds the image, and since leaves out snapshots that the receiver
  // has.
  //
  // The archive is written under a hidden name, flushed to disk and renamed to out_path, replacing
  // a regular file that exists there. Missing parent directories of out_path are created, and
  // removed again if the call fails. A failed call leaves the file at out_path as it was, with one
  // exception (docs/environments.md): on a file system without hard links the new, complete file
  // stays if the last step, a flush, fails (kIO); the message reports this. Where directories
  // cannot be flushed, a crash of the machine may undo the rename.
  //
  // If out_path is a named pipe, or names a descriptor of this process ("/dev/stdout",
  // "/dev/fd/N"), the archive is written there as it is made, and nothing is staged. The call waits
  // until a named pipe has a reader, and a call that fails may have written the beginning of the
  // archive, which Import refuses. If the reader closes the pipe, the call throws kIO; no SIGPIPE
  // is raised.
  //
  // Throws kSnapshotNotFound if the snapshot, or a parent that must be included, is missing.
  // Throws kSnapshotImageMissing if with_image is set and a file of the image is missing.
  // Throws kSnapshotIntegrity if a file is damaged, changes meanwhile, or names a backing file that
  // is neither the disk of its parent nor its image.
  // Throws kInvalidArgument if the level is out of range; if out_path exists and is neither a
  // regular file nor a named pipe, is empty or does not end in a name, is inside a snapshot or in
  // the sandboxes, cache or db directory of the home, or is one of the files to export; or if the
  // snapshot does not descend from since. Throws kUnsupportedOperation for a checkpoint, for a
  // disk of several layers, for parents of another generation (no archive can carry both), for an
  // archive beyond the limits of Import (docs/formats.md), and for a 0.7 snapshot if since is set.
  static void Export(const Context& ctx, const std::string& name_or_path,
                     const std::filesystem::path& out_path, const SnapshotExportOptions& options,
                     const Client& client = Client::Default());

  // Writes the complete disk of a snapshot, given by name or path as for Open, into one sparse file
  // at out_path without a backing file, for other tools or as the image of new sandboxes. The file
  // is published at out_path in the same way, and with the same exceptions, as by Export. The
  // content is not verified (see SnapshotArtifact::Verify).
  //
  // Throws kSnapshotNotFound if the snapshot or a parent that its disk is backed by is missing.
  // Throws kSnapshotImageMissing if the image that its disk is backed by is missing.
  // Throws kSnapshotIntegrity if a file is damaged, or changes while it is read.
  // Throws kInvalidArgument if out_path exists and is not a regular file, is empty or does not end
  // in a name, or is inside a snapshot or in the sandboxes, cache or db directory of the home.
  // Throws kUnsupportedOperation for a checkpoint, a disk of several layers, or an unsupported
  // qcow2 feature.
  static void Flatten(const Context& ctx, const std::string& name_or_path,
                      const std::filesystem::path& out_path,
                      const SnapshotFlattenOptions& options = {},
                      const Client& client = Client::Default());

  // Writes the complete disk of a snapshot, given by name or path as for Open, into a new raw
  // artifact without a backing file. The new snapshot has the image, file system type, consistency
  // and source sandbox of the old one, but no parent, so every backend can boot it, and it can be
  // exported and removed on its own. Its labels are those of destination. Generation, recorded
  // integrity and force are handled as by Create, and the artifact is published and indexed in the
  // same way. With force, destination may be the snapshot itself. The content of the source is not
  // verified (see SnapshotArtifact::Verify).
  //
  // Throws kSnapshotNotFound, kSnapshotImageMissing, kSnapshotIntegrity and kUnsupportedOperation
  // as Flatten does.
  // Throws kSnapshotAlreadyExists if destination exists, unless it is an artifact and force is set.
  // Throws kSnapshotHasChildren or kIO, as Create does, if force would replace a snapshot whose
  // disk other disks need or may need.
  // Throws kInvalidArgument unless exactly one of name and path is set, and for labels or a path
  // that Create refuses, but not for a path that is not UTF-8.
  // Throws kInvalidConfig if the name is invalid.
  static SnapshotArtifact Squash(const Context& ctx, const std::string& name_or_path,
                                 const SnapshotCreateOptions& destination,
                                 const Client& client = Client::Default());

  // Imports the snapshots of an archive of any release into the directory dest, and adds them to
  // the index. Returns the head: the snapshot that descends from all the others. archive is the
  // path of a file or a named pipe, or names a descriptor ("/dev/stdin"); whether it is compressed
  // is detected from its content. dest is created if it is absent; "" means the snapshots
  // directory. Each snapshot becomes a directory named after its identity, as released runtimes
  // name it; the head is named options.name if that is set.
  //
  // A home keeps one copy of a snapshot. If the archive is imported to the snapshots directory and
  // the home has the head already, Import throws kSnapshotAlreadyExists, and the message names the
  // path of that snapshot; parents that the home has are used in place of those in the archive. Any
  // other dest gets copies of its own: only snapshots in dest itself count as present. The index of
  // a runtime before 0.7 has one row for each digest; a snapshot whose digest has a row for another
  // path is not added to it.
  //
  // The archive may be hostile. Nothing is published before the complete archive, with every hash
  // recorded in it, has been checked. Then the image files that the cache lacks are added to it,
  // even if the home has the head already, and the snapshots are published, parents first. A
  // failure or a crash meanwhile leaves what other calls may use by then: complete image files and
  // snapshots, each with its parents and its image. The content of an image's layer cannot be
  // checked against the digest of the image, so import images only from trusted senders.
  //
  // On a file system without RENAME_NOREPLACE (NFS, 9p, some FUSE), an empty directory that other
  // software creates under the name of a snapshot at the moment of its publication is replaced. If
  // the file system lacks hard links too, so is a file that other software creates in the cache
  // under the name of an image's file at that moment. See docs/environments.md.
  //
  // A snapshot whose disk is backed by another snapshot is imported only if the latter is in the
  // archive, in the home or in dest. An image may be added later: if an image that backs a disk is
  // neither in the archive nor in the cache, a warning is logged.
  //
  // Throws kSnapshotIntegrity if the archive is damaged or hostile, or if the cache has a different
  // file under the name of a file of an image.
  // Throws kSnapshotAlreadyExists if the head is present already, or if the name of a directory is
  // taken.
  // Throws kSnapshotNotFound if a snapshot that the archive needs is missing. The message names it.
  // Throws kIO if such a snapshot was not found, but an artifact that could be that snapshot cannot
  // be read. The message names that artifact. If an unreadable artifact could be a snapshot that
  // the archive carries, that is only logged, unless the index names the artifact as that snapshot.
  // Throws kIO if a file of the archive is larger than the free space, not counting the holes of a
  // sparse entry, or if the disk becomes full.
  // Throws kUnsupportedOperation if the archive is incomplete and does not name what it needs, if a
  // disk is backed by a file that is neither the disk of its parent nor its image, or if the
  // archive needs a feature that this library does not support.
  // Throws kInvalidArgument if archive is an empty path; or if dest is a snapshot, is inside one,
  // or is in the sandboxes, cache or db directory of the home.
  // Throws kInvalidConfig if options.name is invalid.
  static SnapshotHandle Import(const Context& ctx, const std::filesystem::path& archive,
                               const std::filesystem::path& dest,
                               const SnapshotImportOptions& options = {},
                               const Client& client = Client::Default());
  // Does the same, but takes the client before the options. This is a template, so that {} always
  // stands for the options.
  template <std::convertible_to<const Client&> ClientType>
  static SnapshotHandle Import(const Context& ctx, const std::filesystem::path& archive,
                               const std::filesystem::path& dest, const ClientType& client,
                               const SnapshotImportOptions& options = {}) {
    return Import(ctx, archive, dest, options, client);
  }

  // Sends a snapshot, given by name or path as for Open, and every snapshot that its disk is backed
  // by, to an OCI registry (docs/registry.md), so that Pull gets it on any other machine. Returns
  // the reference by digest, "HOST/REPOSITORY@sha256:…", which names exactly what was pushed, even
  // if the tag is moved later. The option with_parents adds the other snapshots that it descends
  // from, and with_image adds the image.
  //
  // reference is HOST[:PORT]/REPOSITORY[:TAG]; the default tag is "latest". A tag that exists is
  // moved. Only data that the registry lacks is sent: disks are cut into chunks, and chunks that a
  // parent, or the snapshot that the tag named before, has already are not sent again, whether in
  // this repository or, if the registry can mount blobs, in another one to which this home has
  // pushed the snapshots or from which it has pulled them. The tag is set last, so it never names
  // something incomplete. A call that fails may leave chunks in the registry, which the next call
  // uses.
  //
  // A 0.7 snapshot of one layer is pushed as a descriptor, and therefore has another digest, as in
  // an archive. The content is verified if the snapshot records its integrity in the form of this
  // library (a BLAKE3 tree). Uses up to 128 MiB of memory; docs/registry.md has details.
  //
  // Throws kInvalidArgument if the reference is malformed, or has a digest or a tag of the form
  // snapshot-HEX or image-HEX, which Push itself uses, or if an option is out of range.
  // Throws kSnapshotNotFound, kSnapshotImageMissing and kSnapshotIntegrity as Export does, and
  // kSnapshotIntegrity also if the registry breaks the protocol.
  // Throws kRegistryUnauthorized if the registry rejects the credentials, or requires them.
  // Throws kRegistryUnavailable if the registry cannot be reached, or fails after all retries.
  // Throws kInvalidConfig if the configuration of docker, or a credential helper, is invalid.
  // Throws kIO if ca_file or the credentials cannot be read, or a credential helper fails.
  // Throws kUnsupportedOperation for a checkpoint, for a disk of several layers, for parents of
  // another generation, for more than 4 TiB of data in one file, for more snapshots than one index
  // can list (about 10,000), or if the library was built without libcurl.
  static std::string Push(const Context& ctx, const std::string& name_or_path,
                          const std::string& reference, const SnapshotPushOptions& options = {},
                          const Client& client = Client::Default());

  // Downloads the snapshots that Push has sent to a registry into the directory dest ("" means the
  // snapshots directory), adds them to the index, and returns the head. If the home has the head
  // already, only asks the registry what the reference names, and returns that snapshot. As with
  // Import, each snapshot becomes a directory named after its identity (the head is named
  // options.name if that is set), parents that the home has are used in place of those in the
  // registry, and any dest other than the snapshots directory gets copies of its own.
  //
  // reference is HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]. If it has a digest, that determines what is
  // pulled.
  //
  // Chunks that a local parent has are copied from there (or share its blocks, where the file
  // system can), and not downloaded. An interrupted call keeps what it has downloaded, unless the
  // data of the registry was refused, in a hidden directory in dest (".msb-pull-…"), and the next
  // Pull of the same snapshot continues from there. Calls that create or remove something in dest
  // delete such a directory once it is a day old.
  //
  // The registry may be hostile. Every blob is checked against its digest, every chunk against the
  // integrity tree that the manifest or the chunk table records, and the snapshots in the same way
  // as those of an archive, before all of them are published together, as by Import. The notes on
  // Import about trusted images, missing images and file systems without RENAME_NOREPLACE also
  // apply. Uses up to 128 MiB of memory; docs/registry.md has details.
  //
  // Throws kInvalidArgument if the reference is malformed, if an option is out of range, or for a
  // dest that Import refuses.
  // Throws kSnapshotNotFound if the registry does not have the object that the reference names, or
  // if a snapshot that a disk is backed by is neither there nor here.
  // Throws kSnapshotIntegrity if what the registry sends is damaged or hostile, or if the cache has
  // a different file under the name of a file of an image.
  // Throws kSnapshotAlreadyExists if a directory that it would create exists, or if options.name is
  // set and the home has the head under another name. Throws kUnsupportedOperation if the reference
  // names something other than a snapshot, if the snapshot needs a feature that this library does
  // not support, or if the library was built without libcurl. Throws kRegistryUnauthorized,
  // kRegistryUnavailable, kInvalidConfig and kIO as Push does. Also throws kInvalidConfig if
  // options.name is invalid, and kIO if the disk becomes full.
  static SnapshotHandle Pull(const Context& ctx, const std::string& reference,
                             const std::filesystem::path& dest,
                             const SnapshotPullOptions& options = {},
                             const Client& client = Client::Default());
};

}  // namespace msb

#endif  // MSB_SNAPSHOT_H_
