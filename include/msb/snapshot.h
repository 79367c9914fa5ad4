// Snapshot is the entry to the snapshot API. It mirrors the microsandbox Go SDK's Snapshot value:
// same names, same order of arguments, same meaning; docs/api.md maps one to the other.
//
//   auto snap = msb::Snapshot::Create(ctx, "baseline", {.name = "after-pip-install"});
//   auto worker = msb::CreateSandbox(ctx, "worker", {msb::WithSnapshot("after-pip-install")});
//
// All functions may be called from any thread, at any time, also for the same snapshot; several
// processes may work on the same home. Every function may throw kCancelled (see Context) and kIO.

#ifndef MSB_SNAPSHOT_H_
#define MSB_SNAPSHOT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "msb/artifact.h"
#include "msb/client.h"
#include "msb/context.h"
#include "msb/export.h"
#include "msb/handle.h"

namespace msb {

// Set exactly one of name and path.
struct SnapshotCreateOptions {
  // A bare name; the artifact is written under the snapshots directory. Not empty, UTF-8, at most
  // 255 bytes, no '/', '\' or ':', no control characters, and no leading '.' or '~'.
  std::string name = {};
  // The artifact directory to make, an explicit path. Its parent must exist.
  std::string path = {};
  std::map<std::string, std::string> labels = {};
  // Replace an artifact that is at the destination, but nothing that is none. One of the two is
  // there at any moment.
  bool force = false;
  // Record a hash of the content, so that Verify can check it: a BLAKE3 Merkle tree, or, in the
  // manifest generation, a SHA-256, which is slower and reads the holes as zeros.
  bool record_integrity = false;
};

struct SnapshotExportOptions {
  bool with_parents = false;  // Include the snapshot's parent chain.
  bool with_image = false;    // Include the base image.
  bool plain_tar = false;     // Write an uncompressed .tar instead of .tar.zst.
  // An artifact of the manifest generation: write its holes as holes, which releases before 0.6.7
  // cannot read, not as zeros. Others always are.
  bool sparse = false;
  int level = 3;         // Of zstd, 1 to 19: more takes longer, for a smaller archive.
  unsigned threads = 0;  // That compress; 0: one for each core.
};

struct SnapshotFlattenOptions {
  DiskFormat format = DiskFormat::kRaw;
};

class MSB_EXPORT Snapshot {
 public:
  Snapshot() = delete;

  // Makes an artifact of a sandbox that is not running. It is built aside, flushed to disk and
  // published by one rename, so that after a crash it is there whole or not at all; then it is
  // added to the index, a failure of which is logged, not thrown.
  //
  // A raw disk is copied; holes stay holes, and where the file system can share blocks (reflink),
  // nothing is copied. A qcow2 disk is taken over: the sandbox goes on with an empty overlay, so
  // that this takes the same time for any size, and the snapshot has what was written since the one
  // before, which becomes its parent. Recording integrity reads that much, no more. A qcow2 disk
  // that cannot be taken over, as of a sandbox that a 0.7 runtime restored, or that stands on 200
  // files already, is written out with all that it stands on as one raw disk.
  //
  // kInvalidArgument: not exactly one of name and path. kInvalidConfig: a name that is none, a
  // sandbox without a pinned image or without a disk of its own. kSandboxNotFound.
  // kSnapshotSandboxRunning: it runs, or its disk changed meanwhile. kSnapshotAlreadyExists.
  // kSnapshotHasChildren: with force, it would replace a snapshot that its own disk stands on.
  static SnapshotArtifact Create(const Context& ctx, const std::string& source_sandbox,
                                 const SnapshotCreateOptions& options,
                                 Client& client = Client::Default());

  // Opens an artifact. What contains '/' or begins with '.' or '~' is a path; anything else is a
  // name under the snapshots directory, "GROUP:NAME" or "GROUP" (its head) in a 0.7 home. Checks
  // the manifest, and that the upper is a regular file of the recorded size; reads none of its
  // content (see Verify). An artifact under the snapshots directory that is not in the index is
  // added to it. kSnapshotNotFound, kSnapshotIntegrity; kInvalidConfig: neither a path nor a name.
  static SnapshotArtifact Open(const Context& ctx, const std::string& path_or_name,
                               Client& client = Client::Default());

  // Looks a snapshot up in the index, by name, digest or path. kSnapshotNotFound.
  static SnapshotHandle Get(const Context& ctx, const std::string& name_or_digest,
                            Client& client = Client::Default());

  // All snapshots in the index, newest first. Does not touch the artifacts.
  static std::vector<SnapshotHandle> List(const Context& ctx, Client& client = Client::Default());

  // The artifacts in the subdirectories of dir ("": the snapshots directory), by name. Skips hidden
  // directories, symbolic links and what is no artifact; logs and skips malformed ones. Empty if
  // dir does not exist. Does not touch the index.
  static std::vector<SnapshotArtifact> ListDir(const Context& ctx, const std::string& dir,
                                               Client& client = Client::Default());

  // Deletes an artifact, by name, digest or path, and its index row; a damaged one too, by name or
  // path. kSnapshotHasChildren: indexed snapshots name it as their parent, and force is false.
  // kSnapshotNotFound, also for a directory that is no artifact. kUnsupportedOperation: a member of
  // a 0.7 group, which only that runtime may remove.
  static void Remove(const Context& ctx, const std::string& path_or_name, bool force,
                     Client& client = Client::Default());

  // Rebuilds the index rows of the artifacts in dir ("": the snapshots directory) in one
  // transaction, and drops the rows of those that are gone. Returns how many it indexed.
  static std::uint32_t Reindex(const Context& ctx, const std::string& dir,
                               Client& client = Client::Default());

  // Bundles a snapshot, by name or path as for Open, into an archive at out_path, in the layout of
  // its generation (docs/formats.md); a 0.7 snapshot of one layer goes out as a descriptor, and so
  // under another digest. The archive is written aside, flushed to disk and renamed over what is
  // there. It depends on nothing but the snapshot and the options: exported again, it has the same
  // bytes. Holes are not read. The disk is not verified (see Verify); Import verifies what it
  // reads.
  //
  // with_parents: all that the snapshot descends from, parents first; kSnapshotNotFound if one is
  // missing. with_image: the files of its pinned image, so that the target needs no network;
  // kSnapshotImageMissing if one is missing. kSnapshotNotFound. kSnapshotIntegrity: a file of it is
  // damaged, or changed meanwhile. kInvalidArgument: a level that is none, or an out_path that is
  // no regular file. kUnsupportedOperation: a checkpoint, a disk of several layers, or parents of
  // another generation, which no archive can carry.
  static void Export(const Context& ctx, const std::string& name_or_path,
                     const std::string& out_path, const SnapshotExportOptions& options,
                     Client& client = Client::Default());

  // Writes the whole disk of a snapshot, by name or path as for Open, into one file at out_path,
  // sparse, that stands on nothing: for other tools, or as the image of new sandboxes. It is
  // written aside, flushed to disk and renamed over what is there.
  //
  // kSnapshotNotFound: it, or a parent that its disk stands on, is missing. kSnapshotImageMissing:
  // the image that it stands on is. kSnapshotIntegrity: a file is damaged, or changed meanwhile.
  // kInvalidArgument: an out_path that is no regular file. kUnsupportedOperation: a checkpoint, a
  // disk of several layers, or a feature of qcow2 that this library does not read.
  static void Flatten(const Context& ctx, const std::string& name_or_path,
                      const std::string& out_path, const SnapshotFlattenOptions& options = {},
                      Client& client = Client::Default());

  // Unpacks an archive of any release, compressed or not by its content, from a file or a pipe
  // ("/dev/stdin"), into dest ("": the snapshots directory; made if absent), and adds its snapshots
  // to the index, but for those that it has elsewhere. Each becomes a directory called by its
  // identity, as the releases call it. Returns the head, which the others are the parents of.
  //
  // The archive may be hostile: nothing of it is published before all of it has been checked, with
  // every hash that is recorded in it; then all its snapshots are, or none. Files of images go into
  // the cache, last, and never over one that is there. What a layer of an image holds cannot be
  // checked against the image's digest: import images only from those whom you trust with them.
  //
  // kSnapshotIntegrity: damaged, hostile, or larger than what is free in dest.
  // kSnapshotAlreadyExists: dest has one of its snapshots. kUnsupportedOperation: an archive that
  // is not whole without others, or needs what this library does not know.
  static SnapshotHandle Import(const Context& ctx, const std::string& archive,
                               const std::string& dest, Client& client = Client::Default());
};

}  // namespace msb

#endif  // MSB_SNAPSHOT_H_
