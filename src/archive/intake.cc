// SPDX-License-Identifier: Apache-2.0

#include "src/archive/intake.h"

#include <algorithm>
#include <utility>

#include "src/archive/image_names.h"
#include "src/archive/import_backing.h"
#include "src/base/file.h"
#include "src/base/regular_file.h"
#include "src/base/remove_tree.h"
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
  const UniqueFd dir = base::TryOpenDirectory(spec_.destination);
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
  stage_.emplace(ctx_, spec_.destination, *resume_key_, kMake);
  // An earlier Intake may have been interrupted after it had renamed the head.
  if (spec_.name) base::RemoveTreeAt(stage_->fd(), *spec_.name);
  return *stage_;
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
  const auto type = base::TypeAt(stage_->parent_fd(), snapshot.directory);
  if (type == base::EntryType::kAbsent) return;
  const std::filesystem::path path = spec_.destination / snapshot.directory;
  std::optional<artifact::Manifest> manifest;
  if (type == base::EntryType::kDirectory) manifest = artifact::ReadManifest(path);
  if (!manifest || manifest->digest != snapshot.manifest.digest) {
    // This may be the head, which gets another name. For any other snapshot, publishing fails.
    if (spec_.name) return;
    RefuseExisting(snapshot.directory);
  }
  snapshot.present = Artifact{.path = path, .manifest = *std::move(manifest), .member = {}};
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
    RefuseExisting(snapshot.directory);
  }
}

void Intake::CheckBacking(const std::vector<IncomingSnapshot*>& order,
                          const std::vector<std::string>& needed) const {
  archive::CheckBacking(spec_, words_, order, needed, image_files_);
}

std::vector<Artifact> Intake::Publish(const std::vector<IncomingSnapshot*>& order) {
  if (spec_.name) RenameHead(*order.back());
  std::vector<std::string> names;
  for (const IncomingSnapshot* snapshot : order) {
    if (snapshot->present) continue;
    ctx_.Check();
    base::SyncDirectories(base::OpenEntryAt(stage_->fd(), snapshot->directory).fd.get());
    names.push_back(snapshot->directory);
  }
  ctx_.Check();
  if (const auto taken = stage_->PublishEntries(names)) RefuseExisting(*taken);
  try {
    Images().Install(ctx_);
  } catch (...) {
    stage_->TakeBack(names);
    throw;
  }
  std::vector<Artifact> artifacts;
  artifacts.reserve(order.size());
  for (const IncomingSnapshot* snapshot : order) {
    artifacts.push_back(snapshot->present
                            ? *snapshot->present
                            : Artifact{.path = spec_.destination / snapshot->directory,
                                       .manifest = snapshot->manifest,
                                       .member = std::nullopt});
  }
  return artifacts;
}

void Intake::RenameHead(IncomingSnapshot& head) const {
  if (*spec_.name == head.directory) return;
  const auto result = base::MoveFileAt(stage_->fd(), head.directory, stage_->fd(), *spec_.name);
  // Another snapshot that arrives has that name.
  if (result != base::MoveResult::kMoved) RefuseExisting(*spec_.name);
  head.directory = *spec_.name;
}

}  // namespace msb::archive
