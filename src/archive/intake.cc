// SPDX-License-Identifier: Apache-2.0

#include "src/archive/intake.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "src/archive/image_names.h"
#include "src/archive/import_backing.h"
#include "src/base/file.h"
#include "src/base/regular_file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/qcow2_check.h"
#include "src/disk/qcow2_header.h"

namespace msb::archive {
namespace {

using artifact::Artifact;
using artifact::Integrity;
using base::Throw;
using base::UniqueFd;

// The directory in the stage for image files. The names of the artifacts beside it do not begin
// with a dot.
constexpr const char* kStagedImages = ".images";

UniqueFd OpenStaged(const StagedDisk& staged) {
  return base::OpenRegularFile(staged.path, ErrorKind::kIO);
}

}  // namespace

void RefusePresent(const Artifact& head) {
  const auto& member = head.member;
  Throw(ErrorKind::kSnapshotAlreadyExists,
        "snapshot {} already exists, named '{}', at {}; use it, or remove it first",
        head.manifest.digest, base::Quoted((member ? member->group + ":" : "") + head.Name()),
        head.path.native());
}

Intake::Intake(const Context& ctx, const IntakeSpec& spec, SourceWords words,
               std::optional<std::string> resume_key)
    : ctx_(ctx.WithProgress({})),
      spec_(spec),
      words_(std::move(words)),
      resume_key_(std::move(resume_key)),
      snapshots_(words_) {}

void Intake::CheckNameFree() const {
  if (!spec_.name) return;
  const UniqueFd dir = base::OpenDirectoryUnlessAbsent(spec_.destination);
  if (!dir || base::TypeAt(dir.get(), *spec_.name) == base::EntryType::kAbsent) return;
  RefuseExisting(*spec_.name);
}

void Intake::RefuseExisting(const std::string& directory) const {
  Throw(ErrorKind::kSnapshotAlreadyExists, "{} exists; remove it, or {}",
        (spec_.destination / directory).native(), words_.elsewhere);
}

const base::Stage& Intake::stage() {
  if (stage_) return *stage_;
  constexpr auto kMake = base::Stage::Parents::kMake;
  if (!resume_key_) return stage_.emplace(spec_.destination, kMake);
  return stage_.emplace(ctx_, spec_.destination, *resume_key_, kMake);
}

void Intake::Discard() {
  if (stage_) stage_->Discard();
}

IncomingSnapshot& Intake::Add(Layout layout, const std::string& directory,
                              std::string_view document, std::string_view bytes) {
  IncomingSnapshot& snapshot = snapshots_.Add(layout, directory, document, bytes);
  const base::Stage& stage = this->stage();
  CheckTarget(snapshot);
  if (resume_key_) {
    KeepDisks(ReuseDirectory(stage.fd(), directory).get(), snapshot.manifest.layers);
  } else {
    base::MakeDirectoryAt(stage.fd(), directory);
  }
  WriteText(snapshot, std::string(ManifestFileName(snapshot.manifest.form)), bytes);
  return snapshot;
}

// Checks whether the directory to which the snapshot would be published exists. If it holds the
// same snapshot, that counts as present.
void Intake::CheckTarget(IncomingSnapshot& snapshot) const {
  if (base::TypeAt(stage_->parent_fd(), snapshot.directory) == base::EntryType::kAbsent) return;
  snapshot.present = FindSame(snapshot, snapshot.directory);
  // This may be the head, which gets another name. For any other snapshot, publishing fails.
  if (!snapshot.present && !spec_.name) RefuseExisting(snapshot.directory);
}

// Returns the snapshot in this directory of the destination, unless its manifest differs. Its disk
// may be missing.
std::optional<Artifact> Intake::FindSame(const IncomingSnapshot& snapshot,
                                         const std::string& directory) const {
  const auto type = base::TypeAt(stage_->parent_fd(), directory);
  if (type != base::EntryType::kDirectory) return std::nullopt;
  const std::filesystem::path path = spec_.destination / directory;
  auto manifest = artifact::ReadManifest(path);
  if (!manifest || manifest->digest != snapshot.manifest.digest) return std::nullopt;
  return Artifact{.path = path, .manifest = *std::move(manifest), .member = {}};
}

void Intake::WriteText(const IncomingSnapshot& snapshot, const std::string& name,
                       std::string_view bytes) const {
  const base::Entry dir = base::OpenEntryAt(stage_->fd(), snapshot.directory);
  base::WriteNewFileAt(dir.fd.get(), name, bytes, 0666);
}

std::filesystem::path Intake::DiskPath(const IncomingSnapshot& snapshot,
                                       const std::string& file) const {
  return stage_->path() / snapshot.directory / file;
}

StagedFile Intake::OpenDisk(const IncomingSnapshot& snapshot, const std::string& file,
                            std::uint64_t size) const {
  return ReuseFile(stage_->fd(), std::filesystem::path(snapshot.directory) / file, size);
}

void Intake::CheckSize(std::string_view name, std::uint64_t size,
                       const artifact::Layer& layer) const {
  if (!layer.file_bytes || size == *layer.file_bytes) return;
  RefusePart(words_, name,
             "has " + std::to_string(size) + " bytes, but its manifest records " +
                 std::to_string(*layer.file_bytes));
}

void Intake::AcceptDisk(IncomingSnapshot& snapshot, const std::string& file,
                        const StagedDisk& staged) const {
  const artifact::Layer& layer = LayerOf(snapshot, file);
  CheckSize(staged.name, staged.size, layer);
  CheckIntegrity(staged, layer);
  if (layer.format == DiskFormat::kQcow2 && !staged.path.empty()) {
    const std::string backing = CheckQcow2(staged);
    if (snapshot.manifest.layers.size() == 1) snapshot.backing_file = backing;
  }
  snapshot.awaited.erase(file);
}

void Intake::CheckIntegrity(const StagedDisk& staged, const artifact::Layer& layer) const {
  if (!layer.integrity) return;
  std::optional<Integrity> found = staged.integrity;
  if (!found || found->algorithm != layer.integrity->algorithm) {
    found = artifact::ComputeIntegrity(ctx_, OpenStaged(staged).get(), staged.size,
                                       layer.integrity->algorithm);
  }
  if (found == layer.integrity) return;
  RefusePart(words_, staged.name,
             "differs from its manifest: expected " + layer.integrity->digest + ", found " +
                 found->digest);
}

// Checks a qcow2 disk. Returns the name of its backing file; empty if it has none.
std::string Intake::CheckQcow2(const StagedDisk& staged) const {
  const disk::Qcow2Header header = disk::CheckQcow2(ctx_, OpenStaged(staged).get(), staged.name);
  disk::CheckBackingName(header, staged.name);
  return header.backing_file;
}

std::filesystem::path Intake::AddImageFile(const std::string& file) {
  if (!IsImageFile(file)) RefusePart(words_, file, "is not a file of an image");
  if (std::find(image_files_.begin(), image_files_.end(), file) != image_files_.end()) {
    RefusePart(words_, file, "occurs twice");
  }
  image_files_.push_back(file);
  return stage().path() / kStagedImages / file;
}

StagedFile Intake::OpenImageFile(const std::string& file, std::uint64_t size) {
  AddImageFile(file);
  return ReuseFile(stage().fd(), std::filesystem::path(kStagedImages) / file, size);
}

ArrivedImages Intake::Images() const {
  return {stage_->path() / kStagedImages, image_files_, spec_.cache_dir, words_};
}

void Intake::CheckImages(const std::vector<IncomingSnapshot*>& order) const {
  std::vector<Image> images;
  images.reserve(order.size());
  for (const IncomingSnapshot* snapshot : order) images.push_back(snapshot->manifest.image);
  Images().Check(ctx_, images);
}

const Artifact* Intake::FindPresent(const std::vector<IncomingSnapshot*>& order) {
  for (IncomingSnapshot* snapshot : order) {
    if (snapshot->present) {
      CheckPresent(*snapshot);
    } else if (spec_.find_present) {
      snapshot->present = spec_.find_present(snapshot->manifest.digest);
    }
    if (snapshot->present) snapshot->awaited.clear();
  }
  const IncomingSnapshot& head = *order.back();
  if (!head.present) return nullptr;
  Discard();
  return &*head.present;
}

// Opens the snapshot that already exists where it would be published: its manifest is sound, but
// its disk may be missing.
void Intake::CheckPresent(IncomingSnapshot& snapshot) const {
  try {
    snapshot.present = artifact::OpenArtifactAt(snapshot.present->path);
  } catch (const Error&) {
    RefuseExisting(snapshot.present->path.filename());
  }
}

void Intake::CheckBacking(const std::vector<IncomingSnapshot*>& order,
                          const std::vector<std::string>& needed) const {
  archive::CheckBacking(spec_, words_, order, needed, image_files_);
}

std::vector<Artifact> Intake::Publish(const std::vector<IncomingSnapshot*>& order) {
  IncomingSnapshot& head = *order.back();
  if (!head.present) {
    CheckHeadName(order);
    for (IncomingSnapshot* snapshot : order) FindAppeared(*snapshot, TargetOf(*snapshot, head));
  }
  for (const IncomingSnapshot* snapshot : order) {
    if (snapshot->present) continue;
    ctx_.Check();
    base::SyncDirectories(base::OpenEntryAt(stage_->fd(), snapshot->directory).fd.get());
  }
  Images().Install(ctx_);
  ctx_.Check();
  if (!head.present) Move(order);
  Discard();
  if (head.present) return {*head.present};
  std::vector<Artifact> artifacts;
  artifacts.reserve(order.size());
  for (const IncomingSnapshot* snapshot : order) {
    artifacts.push_back(snapshot->present
                            ? *snapshot->present
                            : Artifact{.path = spec_.destination / TargetOf(*snapshot, head),
                                       .manifest = snapshot->manifest,
                                       .member = std::nullopt});
  }
  return artifacts;
}

// Returns the name that the snapshot gets in the destination.
const std::string& Intake::TargetOf(const IncomingSnapshot& snapshot,
                                    const IncomingSnapshot& head) const {
  return &snapshot == &head && spec_.name ? *spec_.name : snapshot.directory;
}

void Intake::CheckHeadName(const std::vector<IncomingSnapshot*>& order) const {
  const IncomingSnapshot& head = *order.back();
  for (const IncomingSnapshot* other : order) {
    if (other == &head || other->present || other->directory != TargetOf(head, head)) continue;
    Throw(ErrorKind::kSnapshotAlreadyExists,
          "snapshot {} cannot be named '{}': that is the name of snapshot {}, which is also in {}; "
          "choose another name",
          head.id, base::Quoted(other->directory), other->id, words_.noun);
  }
}

// Sets IncomingSnapshot::present if another call has published the snapshot as target since it was
// added. Returns false if there is no target.
bool Intake::FindAppeared(IncomingSnapshot& snapshot, const std::string& target) const {
  if (snapshot.present) return true;
  if (base::TypeAt(stage_->parent_fd(), target) == base::EntryType::kAbsent) return false;
  snapshot.present = FindSame(snapshot, target);
  if (!snapshot.present) RefuseExisting(target);
  CheckPresent(snapshot);
  return true;
}

// Moves the snapshots that are not present into the destination, and flushes it. Other calls may
// use each of them immediately, so none is moved back.
void Intake::Move(const std::vector<IncomingSnapshot*>& order) {
  IncomingSnapshot& head = *order.back();
  // Returns false if another call has published the snapshot.
  const auto publish = [&](IncomingSnapshot& snapshot) {
    const std::string& target = TargetOf(snapshot, head);
    while (!FindAppeared(snapshot, target)) {
      if (stage_->PublishEntry(snapshot.directory, target)) return true;
    }
    return false;
  };
  for (IncomingSnapshot* parent : std::span(order).first(order.size() - 1)) publish(*parent);
  // Parents come first on disk, too.
  if (order.size() > 1) base::Sync(stage_->parent_fd());
  if (!publish(head)) return;
  try {
    base::Sync(stage_->parent_fd());
  } catch (const Error& e) {
    Discard();
    throw Error(e.kind(),
                fmt::format("{}; {} was published nevertheless, but a power failure may undo this: "
                            "remove it and try again",
                            e.what(), (spec_.destination / TargetOf(head, head)).native()),
                e.os_error());
  }
}

}  // namespace msb::archive
