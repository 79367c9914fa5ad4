// SPDX-License-Identifier: Apache-2.0

#include "src/archive/import_backing.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "src/archive/image_names.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"

namespace msb::archive {
namespace {

using artifact::Artifact;
using artifact::Manifest;
using base::Quoted;
using base::Throw;

std::optional<Artifact> FindBacking(const IntakeSpec& spec, const std::string& id) {
  return spec.find_backing ? spec.find_backing(id) : std::nullopt;
}

class BackingChecker {
 public:
  BackingChecker(const IntakeSpec& spec, const SourceWords& words,
                 const std::vector<IncomingSnapshot*>& order,
                 const std::vector<std::string>& image_files)
      : spec_(spec), words_(words), order_(order), image_files_(image_files) {}

  void Check(const IncomingSnapshot& snapshot) {
    // If the receiver has the snapshot already, its disk is used, not the one that arrives.
    if (snapshot.backing_file.empty() || snapshot.present) return;
    const std::string& image = snapshot.manifest.image.manifest_digest;
    if (const auto format = disk::FormatOfDiskFile(snapshot.backing_file, image)) {
      return CheckImage(snapshot, *format);
    }
    const Manifest parent = ParentOf(snapshot);
    const std::string disk = parent.layers.size() == 1
                                 ? disk::DiskFileName(parent.digest, parent.layers[0].format)
                                 : std::string();
    if (disk == snapshot.backing_file) return;
    Throw(ErrorKind::kSnapshotIntegrity,
          "the disk of {}'s snapshot {} is backed by '{}', but the disk of its parent {} is '{}'",
          words_.noun, snapshot.id, Quoted(snapshot.backing_file), parent.digest, disk);
  }

 private:
  void CheckImage(const IncomingSnapshot& snapshot, DiskFormat format) {
    const Image& image = snapshot.manifest.image;
    const std::string file = DiskImageFile(image.manifest_digest, format);
    if (std::find(image_files_.begin(), image_files_.end(), file) != image_files_.end()) return;
    if (base::StampOf(spec_.cache_dir / file) || !spec_.log) return;
    spec_.log(fmt::format(
        "snapshot {} is backed by the image '{}' ({}), which is neither in {} nor in {}; it can be "
        "booted once the image is in the cache",
        snapshot.id, Quoted(image.ref), image.manifest_digest, words_.noun,
        spec_.cache_dir.native()));
  }

  // Returns the manifest of the parent, by whose disk the snapshot's disk must be backed.
  // Throws kUnsupportedOperation if the backing file is not named after the parent.
  // Throws kSnapshotNotFound if the parent is missing.
  Manifest ParentOf(const IncomingSnapshot& snapshot) const {
    if (!artifact::IsBelow(snapshot.manifest, snapshot.backing_file)) {
      Throw(ErrorKind::kUnsupportedOperation,
            "the disk of {}'s snapshot {} is backed by '{}', which is neither its parent's disk "
            "nor its image; squash the snapshot where it was created, and {}",
            words_.noun, snapshot.id, Quoted(snapshot.backing_file), words_.resend);
    }
    const std::string& id = *snapshot.manifest.parent;
    for (const IncomingSnapshot* other : order_) {
      if (other->id == id && !other->present) return other->manifest;
    }
    if (const auto found = FindBacking(spec_, id)) return found->manifest;
    Throw(ErrorKind::kSnapshotNotFound,
          "the disk of {}'s snapshot {} is backed by snapshot {}, which is neither in {} nor in "
          "this home; {}",
          words_.noun, snapshot.id, id, words_.noun, words_.complete);
  }

  const IntakeSpec& spec_;
  const SourceWords& words_;
  const std::vector<IncomingSnapshot*>& order_;
  const std::vector<std::string>& image_files_;
};

}  // namespace

void CheckBacking(const IntakeSpec& spec, const SourceWords& words,
                  const std::vector<IncomingSnapshot*>& order,
                  const std::vector<std::string>& needed,
                  const std::vector<std::string>& image_files) {
  for (const std::string& digest : needed) {
    if (FindBacking(spec, digest)) continue;
    Throw(ErrorKind::kSnapshotNotFound,
          "{} is incremental and needs snapshot {}, which is not in this home; {}", words.noun,
          digest, words.complete);
  }
  BackingChecker checker(spec, words, order, image_files);
  for (const IncomingSnapshot* snapshot : order) checker.Check(*snapshot);
}

}  // namespace msb::archive
