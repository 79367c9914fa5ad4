// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/store.h"

#include <algorithm>
#include <utility>

#include "src/artifact/group.h"
#include "src/base/regular_file.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"

namespace msb::artifact {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;
using base::UniqueFd;

[[noreturn]] void NotFound(const std::filesystem::path& path) {
  Throw(ErrorKind::kSnapshotNotFound, "no snapshot at {}", base::Quoted(path.native()));
}

// Opens the file of a layer beneath dir. file has one or two path components.
Entry OpenBeneath(int dir, const std::string& file) {
  const std::size_t slash = file.find('/');
  if (slash == std::string::npos) return base::OpenEntryAt(dir, file);
  const Entry parent = base::OpenEntryAt(dir, file.substr(0, slash));
  if (parent.type != EntryType::kDirectory) return {};
  return base::OpenEntryAt(parent.fd.get(), file.substr(slash + 1));
}

LayerFile OpenLayerIn(int dir, const std::filesystem::path& artifact, const Layer& layer) {
  const std::filesystem::path path = artifact / layer.file;
  LayerFile file;
  file.fd =
      base::RequireRegularFile(OpenBeneath(dir, layer.file), path, ErrorKind::kSnapshotIntegrity);
  file.stamp = base::StampOf(file.fd.get());
  const std::uint64_t expected = layer.file_bytes.value_or(file.stamp.size);
  if (file.stamp.size != expected) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "{} must have {}, as its manifest records, but has {}; replace it with an undamaged "
          "copy, or remove the snapshot",
          path.native(), base::Count(expected, "byte"), file.stamp.size);
  }
  return file;
}

// The content of the manifest file in an artifact directory.
struct ManifestBytes {
  ManifestForm form;
  std::string bytes;
  std::string origin;
};

std::optional<ManifestBytes> ReadManifestFile(int dir, const std::filesystem::path& path) {
  // A snapshot.json takes precedence: a release that migrates an artifact adds one.
  for (const ManifestForm form : {ManifestForm::kDescriptor, ManifestForm::kManifest}) {
    const std::string name(ManifestFileName(form));
    Entry entry = base::OpenEntryAt(dir, name);
    if (entry.type == EntryType::kAbsent) continue;
    const std::string origin = (path / name).native();
    return ManifestBytes{form, ReadSmallFile(std::move(entry), origin), origin};
  }
  return std::nullopt;
}

// Returns true if an artifact was refused because of its content.
bool IsRefusal(const Error& e) {
  return e.kind() == ErrorKind::kSnapshotIntegrity || e.kind() == ErrorKind::kUnsupportedOperation;
}

Manifest ParseManifestFile(const ManifestBytes& file) {
  return file.form == ManifestForm::kManifest ? ParseManifest(file.form, file.bytes, file.origin)
                                              : ParseSnapshotJson(file.bytes, file.origin);
}

// Returns true for the names of other files and directories that releases put into artifact
// directories.
bool IsArtifactFile(std::string_view name) {
  return name == disk::kRawUpperFile || name == disk::kQcow2UpperFile || name == "layers" ||
         name == "metadata.json" || name == "group-member.json" ||
         name == ".manifest.json.legacy" || name == ".snapshot-migration.lock";
}

// Finds the layer of an artifact that a 0.7 release migrated: it stays beside the manifest, where
// the earlier release put it.
void LocateMigratedLayer(int dir, Manifest& manifest) {
  if (manifest.layers.size() != 1) return;
  Layer& layer = manifest.layers[0];
  if (OpenBeneath(dir, layer.file).type == EntryType::kAbsent &&
      base::OpenEntryAt(dir, std::string(disk::kRawUpperFile)).type != EntryType::kAbsent) {
    layer.file = disk::kRawUpperFile;
  }
}

// Reads the manifest and the metadata beside it. Returns nothing if the directory has no manifest.
std::optional<Artifact> ReadArtifact(int dir, const std::filesystem::path& path) {
  const auto file = ReadManifestFile(dir, path);
  if (!file) return std::nullopt;
  Artifact artifact{.path = path, .directory = IdOf(dir)};
  artifact.manifest = ParseManifestFile(*file);
  if (artifact.manifest.form == ManifestForm::kLayered) {
    artifact.manifest.labels = ReadLayeredLabels(dir, path);
    artifact.member = ReadMembership(dir, path);
    LocateMigratedLayer(dir, artifact.manifest);
  }
  return artifact;
}

// Returns false if no field of the manifest can have one of these ids as its value. A JSON string
// differs from its value only by escapes.
bool MayMention(std::string_view bytes, const std::vector<std::string>& ids) {
  return bytes.find('\\') != bytes.npos || std::any_of(ids.begin(), ids.end(), [&](const auto& id) {
           return bytes.find(id) != bytes.npos;
         });
}

// Reads only the manifest. Returns nullopt if ids is not empty and the manifest mentions none of
// them.
std::optional<Artifact> ReadBareArtifact(int dir, const std::filesystem::path& path,
                                         const std::vector<std::string>& ids) {
  const auto file = ReadManifestFile(dir, path);
  if (!file || (!ids.empty() && !MayMention(file->bytes, ids))) return std::nullopt;
  return Artifact{.path = path, .manifest = ParseManifestFile(*file), .directory = IdOf(dir)};
}

std::optional<OpenedArtifact> TryOpenAt(int dir, const std::filesystem::path& path) {
  auto artifact = ReadArtifact(dir, path);
  if (!artifact) return std::nullopt;
  OpenedArtifact opened{.artifact = *std::move(artifact)};
  for (const Layer& layer : opened.artifact.manifest.layers) {
    opened.layers.push_back(OpenLayerIn(dir, path, layer));
  }
  return opened;
}

// Opens an artifact and closes its files again, for WalkArtifacts.
std::optional<Artifact> CheckArtifact(int dir, const std::filesystem::path& path) {
  auto opened = TryOpenAt(dir, path);
  if (!opened) return std::nullopt;
  return std::move(opened->artifact);
}

bool LeadsTo(const std::filesystem::path& path, const DirectoryId& id) {
  const UniqueFd now = base::TryOpenDirectory(path);
  return now && IdOf(now.get()) == id;
}

// The number of attempts to open an artifact that is replaced each time.
constexpr int kMaxAttempts = 100;

// A Trail records the directories that one attempt to open an artifact went through.
class Trail {
 public:
  void Add(const std::filesystem::path& path, int dir) { steps_.emplace_back(path, IdOf(dir)); }

  // Returns true if the path of one of them no longer leads to it.
  bool IsLost() const {
    return std::any_of(steps_.begin(), steps_.end(),
                       [](const auto& step) { return !LeadsTo(step.first, step.second); });
  }

 private:
  std::vector<std::pair<std::filesystem::path, DirectoryId>> steps_;
};

bool MayComeFromReplacement(ErrorKind kind) {
  return kind == ErrorKind::kSnapshotIntegrity || kind == ErrorKind::kIO ||
         kind == ErrorKind::kSnapshotNotFound;
}

// Calls open until it succeeds, or fails for an artifact that is still in place. Files that are
// missing because the artifact was removed or replaced meanwhile are not reported as damage.
OpenedArtifact OpenSteadily(
    const Context& ctx, const std::filesystem::path& path,
    const std::function<std::optional<OpenedArtifact>(Trail& trail)>& open) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    ctx.Check();
    Trail trail;
    try {
      if (auto opened = open(trail)) return *std::move(opened);
      if (!trail.IsLost()) NotFound(path);
    } catch (const Error& e) {
      const bool may_be_aside = attempt == 0 && e.kind() == ErrorKind::kSnapshotNotFound;
      if (may_be_aside && base::AwaitExchange(path)) continue;
      if (!MayComeFromReplacement(e.kind()) || !trail.IsLost()) throw;
    }
  }
  Throw(ErrorKind::kSnapshotNotFound,
        "the snapshot at {} was removed or replaced while it was opened, {} times in a row; try "
        "again",
        base::Quoted(path.native()), kMaxAttempts);
}

// Opens the artifact in an open directory, or the head if the directory is a group.
std::optional<OpenedArtifact> TryOpenAtOrHead(int dir, const std::filesystem::path& path,
                                              Trail& trail) {
  trail.Add(path, dir);
  const auto head = ReadGroupHead(dir, path);
  if (!head) return TryOpenAt(dir, path);
  const Entry member = base::OpenEntryAt(dir, *head);
  if (member.type != EntryType::kDirectory) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "the head of group {} is member '{}', which must be a directory, but is {}",
          path.native(), base::Quoted(*head), base::Describe(member.type));
  }
  trail.Add(path / *head, member.fd.get());
  return TryOpenAt(member.fd.get(), path / *head);
}

// Opens the directory of this name under the snapshots directory.
UniqueFd OpenNamedDirectory(const std::filesystem::path& snapshots_dir, const std::string& name) {
  const UniqueFd parent = base::OpenDirectoryUnlessAbsent(snapshots_dir);
  if (!parent) NotFound(snapshots_dir / name);
  Entry entry = base::OpenEntryAt(parent.get(), name);
  if (entry.type == EntryType::kAbsent) NotFound(snapshots_dir / name);
  if (entry.type != EntryType::kDirectory) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} must be a directory, but is {}; {}",
          (snapshots_dir / name).native(), base::Describe(entry.type),
          entry.type == EntryType::kSymlink ? "give the path of the snapshot that it points to"
                                            : "move it away");
  }
  return std::move(entry.fd);
}

// Returns the names of the visible subdirectories of an open directory.
std::vector<std::string> Subdirectories(int dir) {
  std::vector<std::string> names;
  for (base::DirectoryEntry& entry : base::ListDirectory(dir)) {
    if (entry.type == EntryType::kDirectory && !entry.name.starts_with('.')) {
      names.push_back(std::move(entry.name));
    }
  }
  return names;
}

std::optional<OpenedArtifact> OpenMember(const std::filesystem::path& snapshots_dir,
                                         const std::string& group, const std::string& name,
                                         Trail& trail) {
  const UniqueFd dir = OpenNamedDirectory(snapshots_dir, group);
  const std::filesystem::path path = snapshots_dir / group;
  trail.Add(path, dir.get());
  std::optional<Error> damaged;  // The last member with an unreadable name; it may be this one.
  for (const std::string& id : Subdirectories(dir.get())) {
    const Entry member = base::OpenEntryAt(dir.get(), id);
    if (member.type != EntryType::kDirectory) continue;
    std::optional<Membership> membership;
    try {
      membership = ReadMembership(member.fd.get(), path / id);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kSnapshotIntegrity) throw;
      damaged = e;
    }
    if (!membership || membership->name != name) continue;
    trail.Add(path / id, member.fd.get());
    if (auto artifact = TryOpenAt(member.fd.get(), path / id)) return artifact;
  }
  if (damaged) throw *damaged;
  Throw(ErrorKind::kSnapshotNotFound, "group {} has no snapshot '{}'", path.native(),
        base::Quoted(name));
}

using Reader = std::function<std::optional<Artifact>(int dir, const std::filesystem::path& path)>;

enum class Groups { kEnter, kIgnore };

// One pass over the subdirectories of a directory.
class Walk {
 public:
  Walk(const Context& ctx, Reader read, const std::function<void(Artifact)>& found,
       const std::function<void(const Error&)>& failed)
      : ctx_(ctx), read_(std::move(read)), found_(found), failed_(failed) {}

  void Run(int dir, const std::filesystem::path& path, Groups groups) {
    Visit(dir, path, Subdirectories(dir), groups);
  }

 private:
  void Visit(int dir, const std::filesystem::path& path, const std::vector<std::string>& names,
             Groups groups) {
    for (const std::string& name : names) {
      ctx_.Check();
      VisitChild(dir, name, path / name, groups);
    }
  }

  void VisitChild(int dir, const std::string& name, const std::filesystem::path& path,
                  Groups groups) {
    for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
      Entry child;
      std::optional<Artifact> artifact;
      std::optional<std::vector<std::string>> members;
      try {
        child = base::OpenEntryAt(dir, name);
        if (child.type != EntryType::kDirectory) return;
        if (groups == Groups::kEnter && ReadGroupHead(child.fd.get(), path)) {
          members = Subdirectories(child.fd.get());
        } else {
          artifact = read_(child.fd.get(), path);
        }
      } catch (const Error& e) {
        if (!IsRefusal(e) && e.kind() != ErrorKind::kIO) throw;
        if (!child.fd || IsAt(dir, name, child.fd.get())) return failed_(e);
        continue;  // The child was removed or replaced meanwhile.
      }
      if (members) return Visit(child.fd.get(), path, *members, Groups::kIgnore);
      if (artifact) return found_(*std::move(artifact));
      if (IsAt(dir, name, child.fd.get())) return;
    }
  }

  static bool IsAt(int dir, const std::string& name, int child) {
    const Entry now = base::OpenEntryAt(dir, name);
    return now.type == EntryType::kDirectory && IdOf(now.fd.get()) == IdOf(child);
  }

  const Context& ctx_;
  const Reader read_;
  const std::function<void(Artifact)>& found_;
  const std::function<void(const Error&)>& failed_;
};

}  // namespace

std::string Artifact::Name() const { return member ? member->name : path.filename().native(); }

void CheckSnapshotName(const std::string& name) {
  constexpr std::size_t kMaxBytes = 255;  // The longest name of a file.
  base::CheckBareName("snapshot", name, kMaxBytes);
}

bool IsPath(std::string_view path_or_name) {
  return path_or_name.find('/') != std::string_view::npos || path_or_name.starts_with('.') ||
         path_or_name.starts_with('~');
}

DirectoryId IdOf(int dir) {
  const base::FileStamp stamp = base::StampOf(dir);
  return {stamp.device, stamp.inode};
}

bool IsInPlace(const Artifact& artifact) { return LeadsTo(artifact.path, artifact.directory); }

UniqueFd OpenLayer(const OpenedArtifact& opened, std::size_t index) {
  const LayerFile& file = opened.layers.at(index);
  if (file.fd) return base::Duplicate(file.fd.get());
  const Artifact& artifact = opened.artifact;
  const UniqueFd dir = base::TryOpenDirectory(artifact.path);
  if (dir && IdOf(dir.get()) == artifact.directory) {
    LayerFile again = OpenLayerIn(dir.get(), artifact.path, artifact.manifest.layers.at(index));
    if (again.stamp.SameContent(file.stamp)) return std::move(again.fd);
  }
  Throw(ErrorKind::kSnapshotNotFound, "{} was removed or replaced while it was read; try again",
        artifact.path.native());
}

void CloseLayers(OpenedArtifact& opened) {
  for (LayerFile& file : opened.layers) file.fd.Reset(-1);
}

OpenedArtifact OpenAt(const Context& ctx, const std::filesystem::path& path) {
  return OpenSteadily(ctx, path, [&](Trail& trail) {
    const UniqueFd dir = base::TryOpenDirectory(path);
    if (!dir) NotFound(path);
    return TryOpenAtOrHead(dir.get(), path, trail);
  });
}

OpenedArtifact OpenNamed(const Context& ctx, const std::filesystem::path& snapshots_dir,
                         const std::string& path_or_name) {
  if (IsPath(path_or_name)) return OpenAt(ctx, base::AbsolutePath(path_or_name));
  const std::size_t colon = path_or_name.find(':');
  const std::string name = path_or_name.substr(0, colon);
  CheckSnapshotName(name);
  return OpenSteadily(ctx, snapshots_dir / name, [&](Trail& trail) {
    if (colon != std::string::npos) {
      return OpenMember(snapshots_dir, name, path_or_name.substr(colon + 1), trail);
    }
    const UniqueFd dir = OpenNamedDirectory(snapshots_dir, name);
    return TryOpenAtOrHead(dir.get(), snapshots_dir / name, trail);
  });
}

Artifact OpenArtifactAt(const std::filesystem::path& path) {
  return OpenAt(Context::Background(), path).artifact;
}

void WalkArtifacts(const Context& ctx, const std::filesystem::path& dir,
                   const std::function<void(Artifact)>& found,
                   const std::function<void(const Error&)>& failed) {
  const UniqueFd root = base::OpenDirectoryUnlessAbsent(dir);
  if (root) Walk(ctx, CheckArtifact, found, failed).Run(root.get(), dir, Groups::kEnter);
}

void WalkManifests(const Context& ctx, const std::filesystem::path& dir,
                   const std::function<void(Artifact)>& found,
                   const std::function<void(const Error&)>& failed,
                   const std::vector<std::string>& ids) {
  const auto read = [&](int child, const std::filesystem::path& path) {
    return ReadBareArtifact(child, path, ids);
  };
  const UniqueFd root = base::OpenDirectoryUnlessAbsent(dir);
  if (root) Walk(ctx, read, found, failed).Run(root.get(), dir, Groups::kEnter);
}

std::optional<Manifest> ReadManifest(const std::filesystem::path& path) {
  const UniqueFd dir = base::TryOpenDirectory(path);
  return dir ? ReadManifest(dir.get(), path) : std::nullopt;
}

std::optional<Manifest> ReadManifest(int dir, const std::filesystem::path& path) {
  try {
    const auto file = ReadManifestFile(dir, path);
    if (file) return ParseManifestFile(*file);
  } catch (const Error& e) {
    if (!IsRefusal(e)) throw;
  }
  return std::nullopt;
}

void CheckUnreplaced(const BackingFile& file) {
  const std::filesystem::path place = file.disk.path.parent_path();
  const auto now = ReadManifest(place);  // An image has no manifest beside it.
  if (!now || disk::DiskFileName(now->digest, file.disk.format) == file.name) return;
  base::Throw(ErrorKind::kSnapshotNotFound,
              "{} was replaced while it was read: expected the disk {}, found {}; try again",
              place.native(), file.name, disk::DiskFileName(now->digest, file.disk.format));
}

bool HoldsArtifact(const std::filesystem::path& path) {
  for (;;) {
    const UniqueFd dir = base::TryOpenDirectory(path);
    if (!dir) return false;
    if (HoldsArtifact(dir.get(), path)) return true;
    // If path leads elsewhere now, the directory was replaced after it was opened, and is being
    // deleted: check the new one.
    if (base::LeadsTo(path, dir.get())) return false;
  }
}

bool HoldsArtifact(int dir, const std::filesystem::path& path) {
  // A file name alone proves nothing: other software has files named manifest.json too.
  if (ReadManifest(dir, path)) return true;
  const auto has = [&](ManifestForm form) {
    return base::TypeAt(dir, std::string(ManifestFileName(form))) == EntryType::kRegularFile;
  };
  if (!has(ManifestForm::kManifest) && !has(ManifestForm::kDescriptor)) return false;
  for (const base::DirectoryEntry& entry : base::ListDirectory(dir)) {
    if (!IsManifestFile(entry.name) && !IsArtifactFile(entry.name)) return false;
  }
  return true;
}

}  // namespace msb::artifact
