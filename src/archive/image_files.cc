// SPDX-License-Identifier: Apache-2.0

#include "src/archive/image_files.h"

#include <algorithm>
#include <array>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "src/archive/image_metadata.h"
#include "src/archive/vmdk.h"
#include "src/artifact/integrity.h"
#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/home.h"
#include "src/base/new_directory.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/image_probe.h"
#include "src/disk/qcow2_check.h"
#include "src/disk/qcow2_header.h"
#include "src/disk/sparse_copy.h"

namespace msb::archive {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;
using base::UniqueFd;

// The order in which files are moved into the cache: each before those that refer to it.
constexpr std::array<std::string_view, 5> kKinds = {"layers", "fsmeta", base::Home::kDisks, "vmdk",
                                                    "manifests"};

std::string KindOf(const std::string& file) { return file.substr(0, file.find('/')); }
std::string NameOf(const std::string& file) { return file.substr(file.find('/') + 1); }

bool IsVmdk(std::string_view file) { return file.starts_with("vmdk/"); }

// What to do if a file of the cache is missing or damaged.
constexpr std::string_view kAddAgain = "remove the image and add it again";

// An ImageFolder is a directory that holds image files: the cache, or the files that arrived.
class ImageFolder {
 public:
  // An absent directory counts as empty. missing is the kind of error that is thrown if a file is
  // absent. next_step ends the messages about missing and damaged files.
  ImageFolder(std::filesystem::path path, ErrorKind missing, std::string_view next_step)
      : path_(std::move(path)),
        dir_(base::OpenDirectoryUnlessAbsent(path_)),
        missing_(missing),
        next_step_(next_step) {}

  std::string PathOf(const std::string& file) const { return (path_ / file).native(); }

  // Opens a file. Returns nothing if it is absent.
  // Throws kSnapshotIntegrity if it is not a regular file.
  std::optional<UniqueFd> Find(const std::string& file) const {
    Entry entry;
    if (dir_) entry = base::OpenEntryAt(dir_.get(), KindOf(file));
    if (entry.type == EntryType::kAbsent) return std::nullopt;
    if (entry.type != EntryType::kDirectory) Refuse(KindOf(file), "a directory", entry.type);
    entry = base::OpenEntryAt(entry.fd.get(), NameOf(file));
    if (entry.type == EntryType::kAbsent) return std::nullopt;
    if (entry.type != EntryType::kRegularFile) Refuse(file, "a regular file", entry.type);
    return std::move(entry.fd);
  }

  // Opens a file of an image. Throws the folder's error if it is absent.
  UniqueFd Open(const std::string& file, const Image& image) const {
    if (auto fd = Find(file)) return *std::move(fd);
    ThrowMissing(file, image);
  }

  [[noreturn]] void ThrowMissing(const std::string& file, const Image& image) const {
    Throw(missing_, "image '{}' ({}) is incomplete: {} is missing; {}", base::Quoted(image.ref),
          image.manifest_digest, PathOf(file), next_step_);
  }

  [[noreturn]] void Damaged(const std::string& file, std::string_view problem) const {
    Throw(ErrorKind::kSnapshotIntegrity, "{} {}; {}", PathOf(file), problem, next_step_);
  }

  // Passes the content of a file to parse, and returns the result.
  // Throws kSnapshotIntegrity if the content is longer than limit bytes, or parse throws
  // std::invalid_argument.
  template <typename Parse>
  auto Read(int fd, const std::string& file, std::size_t limit, const Parse& parse) const {
    const auto text = base::ReadAll(fd, limit);
    if (!text) Damaged(file, fmt::format("is longer than {} bytes", limit));
    try {
      return parse(*text);
    } catch (const std::invalid_argument& e) {
      Damaged(file, fmt::format("is malformed: {}", e.what()));
    }
  }

  std::vector<VmdkExtent> ReadVmdk(int fd, const std::string& file) const {
    return Read(fd, file, kMaxVmdkBytes, ParseVmdk);
  }

 private:
  [[noreturn]] void Refuse(const std::string& file, std::string_view expected,
                           EntryType found) const {
    Damaged(file, fmt::format("must be {}, but is {}", expected, base::Describe(found)));
  }

  std::filesystem::path path_;
  UniqueFd dir_;
  ErrorKind missing_;
  std::string next_step_;
};

// Checks the files of the OCI image that metadata_file describes, and returns them. Throws the
// folder's error if one of them is absent.
std::vector<std::string> CheckOciImage(const ImageFolder& folder, const Image& image,
                                       const std::string& metadata_file,
                                       const ImageMetadata& metadata) {
  const std::string vmdk = VmdkFile(metadata.manifest_digest);
  std::vector<std::string> files = {metadata_file, FsmetaFile(metadata.manifest_digest), vmdk};
  std::vector<JoinedFile> joined;
  const auto join = [&](const std::string& file) {
    const UniqueFd fd = folder.Open(file, image);
    joined.push_back({file, base::StampOf(fd.get()).size});
  };
  join(files[1]);
  for (const std::string& diff_id : metadata.diff_ids) {
    join(LayerFile(diff_id));
    // An image may have a layer twice; the vmdk then joins its file twice.
    if (std::find(files.begin(), files.end(), joined.back().file) == files.end()) {
      files.push_back(joined.back().file);
    }
  }
  const UniqueFd fd = folder.Open(vmdk, image);
  folder.Read(fd.get(), vmdk, kMaxVmdkBytes, [&](std::string_view text) {
    CheckVmdk(ParseVmdk(text), joined);
    return 0;
  });
  return files;
}

std::vector<std::string> FormsOfDiskImage(const std::string& digest) {
  return {DiskImageFile(digest, DiskFormat::kRaw), DiskImageFile(digest, DiskFormat::kQcow2)};
}

// Throws unless the content has the digest and the format in the file's name. The format matters as
// much as the digest: a raw disk that is read as qcow2 could name a backing file.
void CheckDiskImage(const Context& ctx, const ImageFolder& folder, const std::string& file,
                    const Image& image) {
  const UniqueFd fd = folder.Open(file, image);
  const artifact::Integrity found =
      artifact::ComputeIntegrity(ctx, fd.get(), base::StampOf(fd.get()).size, artifact::kSha256);
  if (found.digest != image.manifest_digest) {
    folder.Damaged(file, "must have the digest in its name, but has " + found.digest);
  }
  const DiskFormat format = disk::ProbeFormat(fd.get());
  if (file != DiskImageFile(image.manifest_digest, format)) {
    folder.Damaged(file,
                   fmt::format("must be of the format in its name, but is {}", ToString(format)));
  }
  if (format == DiskFormat::kQcow2) {
    disk::CheckBackingName(disk::CheckQcow2(ctx, fd.get(), file), file);
  }
}

// Checks the images whose files arrived, and returns the files that belong to them.
std::set<std::string> CheckImages(const Context& ctx, const ImageFolder& arrived,
                                  const std::set<std::string>& files,
                                  const std::vector<Image>& images) {
  std::set<std::string> claimed;
  std::map<std::string, ImageMetadata> parsed;  // By file, which several images may share.
  for (const Image& image : images) {
    ctx.Check();
    if (!base::IsDigest(image.manifest_digest, "sha256")) continue;
    for (const std::string& file : FormsOfDiskImage(image.manifest_digest)) {
      if (!files.contains(file) || !claimed.insert(file).second) continue;
      CheckDiskImage(ctx, arrived, file, image);
    }
    // Many snapshots of one image may arrive: check its files once.
    const std::string metadata_file = MetadataFile(image.ref);
    if (!files.contains(metadata_file) || claimed.contains(metadata_file)) continue;
    if (!parsed.contains(metadata_file)) {
      const UniqueFd fd = arrived.Open(metadata_file, image);
      parsed.emplace(metadata_file, arrived.Read(fd.get(), metadata_file, kMaxImageMetadataBytes,
                                                 ParseImageMetadata));
    }
    const ImageMetadata& metadata = parsed.at(metadata_file);
    if (metadata.manifest_digest != image.manifest_digest) continue;
    for (std::string& file : CheckOciImage(arrived, image, metadata_file, metadata)) {
      if (!files.contains(file)) arrived.ThrowMissing(file, image);
      claimed.insert(std::move(file));
    }
  }
  return claimed;
}

bool HaveSameContent(const Context& ctx, int one, int other) {
  const std::uint64_t size = base::StampOf(one).size;
  if (base::StampOf(other).size != size) return false;
  return artifact::ComputeIntegrity(ctx, one, size, artifact::kSha256) ==
         artifact::ComputeIntegrity(ctx, other, size, artifact::kSha256);
}

// Throws kSnapshotIntegrity if the cache has a different file of the same name.
void CheckAgainst(const Context& ctx, const ImageFolder& cache, const ImageFolder& arrived,
                  const std::string& file, const SourceWords& words) {
  const auto cached = cache.Find(file);
  if (!cached) return;
  const auto fd = arrived.Find(file);
  const bool identical =
      fd && (IsVmdk(file) ? cache.ReadVmdk(cached->get(), file) == arrived.ReadVmdk(fd->get(), file)
                          : HaveSameContent(ctx, cached->get(), fd->get()));
  if (!identical) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "{}'s image file {} differs from {}, which is not replaced; remove that image first",
          words.noun, file, cache.PathOf(file));
  }
}

// An Installation moves files into the cache. Files that it has moved stay, because other calls may
// use them immediately. Directories that it has created are removed if they are empty.
class Installation {
 public:
  Installation(const Context& ctx, const std::filesystem::path& staged,
               const std::filesystem::path& cache_dir, const SourceWords& words)
      : ctx_(ctx), staged_(staged), cache_dir_(cache_dir), words_(words) {
    // Concurrent installations take turns, so that each moves or copies only what is missing. One
    // that has failed removes the directory if it had created it.
    do {
      ctx.Check();
      root_.emplace(cache_dir);
      base::Lock(ctx, root_->fd());
    } while (!base::LeadsTo(cache_dir, root_->fd()));
  }

  void Add(const std::string& file) {
    ctx_.Check();
    const ImageFolder arrived(staged_, ErrorKind::kSnapshotIntegrity, words_.next_step);
    const auto source = arrived.Find(file);
    if (!source)
      Throw(ErrorKind::kIO, "{} was removed by another program: stop that program and try again",
            arrived.PathOf(file));
    // Disk images in the cache are read-only.
    if (IsDiskImageFile(file))
      base::TrySetMode(source->get(), base::StampOf(source->get()).mode & 0444);
    base::Sync(source->get());
    const Entry target = OpenKind(KindOf(file));
    const base::MoveResult result = Move(file, source->get(), target.fd.get());
    if (result == base::MoveResult::kTargetExists) {
      const ImageFolder cache(cache_dir_, ErrorKind::kIO, words_.next_step);
      CheckAgainst(ctx_, cache, arrived, file, words_);
    }
    if (result == base::MoveResult::kOtherFileSystem) {
      Throw(ErrorKind::kIO,
            "cannot rename a file within {}, which is not on a single file system; use another "
            "cache directory",
            (cache_dir_ / KindOf(file)).native());
    }
    // A call that failed may have left the file before it was flushed.
    base::Sync(target.fd.get());
  }

 private:
  Entry OpenKind(const std::string& kind) {
    kinds_.emplace_back(cache_dir_ / kind);
    Entry entry = base::OpenEntryAt(root_->fd(), kind);
    if (entry.type == EntryType::kDirectory) return entry;
    Throw(ErrorKind::kIO, "{} must be a directory, but is {}: move it away",
          (cache_dir_ / kind).native(), base::Describe(entry.type));
  }

  base::MoveResult Move(const std::string& file, int source, int target) const {
    const std::string name = NameOf(file);
    const std::string kind = KindOf(file);
    const UniqueFd dir = base::OpenDirectory(staged_ / kind);
    const base::MoveResult result = base::MoveFileAt(dir.get(), name, target, name);
    if (result != base::MoveResult::kOtherFileSystem) return result;
    base::SweepStages(ctx_, cache_dir_ / kind, {});
    base::Stage stage(cache_dir_ / kind);
    const base::FileStamp stamp = base::StampOf(source);
    const UniqueFd copy = base::CreateFileAt(stage.fd(), name, stamp.mode & 0666);
    disk::CopySparse(ctx_, source, copy.get(), stamp.size);
    return base::MoveFileAt(stage.fd(), name, target, name);
  }

  const Context& ctx_;
  const std::filesystem::path& staged_;
  const std::filesystem::path& cache_dir_;
  const SourceWords& words_;
  std::optional<base::NewDirectory> root_;
  std::list<base::NewDirectory> kinds_;
};

}  // namespace

std::vector<std::string> FilesOfImage(const std::filesystem::path& cache_dir, const Image& image) {
  const auto missing = [&](const std::string& why) {
    Throw(ErrorKind::kSnapshotImageMissing, "image '{}' ({}) is not in {}: {}; {}",
          base::Quoted(image.ref), base::Quoted(image.manifest_digest), cache_dir.native(), why,
          kAddAgain);
  };
  if (!base::IsDigest(image.manifest_digest, "sha256")) {
    missing("the digest must be 'sha256:' and 64 lower-case hex digits");
  }
  const ImageFolder cache(cache_dir, ErrorKind::kSnapshotImageMissing, kAddAgain);
  for (const std::string& file : FormsOfDiskImage(image.manifest_digest)) {
    if (cache.Find(file)) return {file};
  }
  const std::string metadata_file = MetadataFile(image.ref);
  const auto fd = cache.Find(metadata_file);
  if (!fd) missing(metadata_file + " is missing");
  const ImageMetadata metadata =
      cache.Read(fd->get(), metadata_file, kMaxImageMetadataBytes, ParseImageMetadata);
  if (metadata.manifest_digest != image.manifest_digest) {
    missing(fmt::format("{} describes {}, to which the reference has moved", metadata_file,
                        metadata.manifest_digest));
  }
  return CheckOciImage(cache, image, metadata_file, metadata);
}

std::vector<std::string> FilesOfImages(const std::filesystem::path& cache_dir,
                                       const std::vector<artifact::OpenedArtifact>& chain) {
  std::vector<std::string> files;
  for (const artifact::OpenedArtifact& opened : chain) {
    for (std::string& file : FilesOfImage(cache_dir, opened.artifact.manifest.image)) {
      if (std::find(files.begin(), files.end(), file) == files.end()) {
        files.push_back(std::move(file));
      }
    }
  }
  return files;
}

ArrivedImages::ArrivedImages(std::filesystem::path staged, std::vector<std::string> files,
                             std::filesystem::path cache_dir, SourceWords words)
    : staged_(std::move(staged)),
      files_(std::move(files)),
      cache_dir_(std::move(cache_dir)),
      words_(std::move(words)) {}

void ArrivedImages::Check(const Context& ctx, const std::vector<Image>& images) {
  const ImageFolder arrived(staged_, ErrorKind::kSnapshotIntegrity, words_.next_step);
  const ImageFolder cache(cache_dir_, ErrorKind::kSnapshotImageMissing, kAddAgain);
  const std::set<std::string> files(files_.begin(), files_.end());
  const std::set<std::string> claimed = CheckImages(ctx, arrived, files, images);
  for (const std::string& file : files) {
    if (claimed.contains(file)) continue;
    Throw(ErrorKind::kSnapshotIntegrity,
          "{}'s image file '{}' belongs to no image of its snapshots", words_.noun,
          base::Quoted(file));
  }
  std::vector<std::pair<std::string, std::string>> vmdks;  // Name and new text.
  for (const std::string& file : files) {
    CheckAgainst(ctx, cache, arrived, file, words_);
    if (!IsVmdk(file)) continue;
    const auto fd = arrived.Find(file);
    vmdks.emplace_back(NameOf(file), FormatVmdk(cache_dir_, arrived.ReadVmdk(fd->get(), file)));
  }
  for (const auto& [name, text] : vmdks) {
    base::ReplaceFileAt(base::OpenDirectory(staged_ / "vmdk").get(), name, text, 0666);
  }
}

void ArrivedImages::Install(const Context& ctx) {
  if (files_.empty()) return;
  Installation installation(ctx, staged_, cache_dir_, words_);
  for (const std::string_view kind : kKinds) {
    for (const std::string& file : files_) {
      if (KindOf(file) == kind) installation.Add(file);
    }
  }
}

}  // namespace msb::archive
