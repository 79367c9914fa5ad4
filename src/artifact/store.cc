#include "src/artifact/store.h"

#include "src/artifact/group.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::artifact {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;
using base::UniqueFd;

[[noreturn]] void NotFound(const std::filesystem::path& path) {
  Throw(ErrorKind::kSnapshotNotFound, "no snapshot at {}", base::Quoted(path.native()));
}

// Opens one file of a layer, walking file's components beneath dir.
Entry OpenBeneath(int dir, const std::string& file) {
  const std::size_t slash = file.find('/');
  if (slash == std::string::npos) return base::OpenEntryAt(dir, file);
  const Entry parent = base::OpenEntryAt(dir, file.substr(0, slash));
  if (parent.type != EntryType::kDirectory) return {};
  return base::OpenEntryAt(parent.fd.get(), file.substr(slash + 1));
}

UniqueFd OpenLayerIn(int dir, const std::filesystem::path& artifact, const Layer& layer) {
  Entry entry = OpenBeneath(dir, layer.file);
  const auto fail = [&](const std::string& problem) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} {}", (artifact / layer.file).native(), problem);
  };
  if (entry.type != EntryType::kRegularFile) {
    fail(fmt::format("must be a regular file, but is {}", base::Describe(entry.type)));
  }
  const std::uint64_t size = base::StampOf(entry.fd.get()).size;
  if (size != layer.file_bytes.value_or(size)) {
    fail(fmt::format("must have {} bytes, as the manifest says, but has {}", *layer.file_bytes,
                     size));
  }
  return std::move(entry.fd);
}

// The manifest file of an artifact directory and its content; nothing if it has none.
struct ManifestBytes {
  ManifestForm form;
  std::string bytes;
  std::string origin;
};

std::optional<ManifestBytes> ReadManifestFile(int dir, const std::filesystem::path& path) {
  // A snapshot.json counts first: a release that migrates an artifact adds one.
  for (const ManifestForm form : {ManifestForm::kDescriptor, ManifestForm::kManifest}) {
    const std::string name(ManifestFileName(form));
    const Entry entry = base::OpenEntryAt(dir, name);
    if (entry.type == EntryType::kAbsent) continue;
    const std::string origin = (path / name).native();
    return ManifestBytes{form, ReadSmallFile(entry, origin), origin};
  }
  return std::nullopt;
}

Manifest ParseManifestFile(const ManifestBytes& file) {
  return file.form == ManifestForm::kManifest ? ParseManifest(file.form, file.bytes, file.origin)
                                              : ParseSnapshotJson(file.bytes, file.origin);
}

// What else releases put into artifact directories.
bool IsArtifactFile(std::string_view name) {
  return name == kRawUpperFile || name == kQcow2UpperFile || name == "layers" ||
         name == "metadata.json" || name == "group-member.json" ||
         name == ".manifest.json.legacy" || name == ".snapshot-migration.lock";
}

// A 0.7 release keeps one layer where it migrated an artifact from: beside the manifest.
void LocateMigratedLayer(int dir, Manifest& manifest) {
  if (manifest.layers.size() != 1) return;
  Layer& layer = manifest.layers[0];
  if (OpenBeneath(dir, layer.file).type == EntryType::kAbsent &&
      base::OpenEntryAt(dir, std::string(kRawUpperFile)).type != EntryType::kAbsent) {
    layer.file = kRawUpperFile;
  }
}

// Nothing if there is no manifest in the directory.
std::optional<Artifact> TryOpenAt(int dir, const std::filesystem::path& path) {
  const auto file = ReadManifestFile(dir, path);
  if (!file) return std::nullopt;
  Artifact artifact{.path = path, .manifest = {}, .member = std::nullopt};
  artifact.manifest = ParseManifestFile(*file);
  if (artifact.manifest.form == ManifestForm::kLayered) {
    artifact.manifest.labels = ReadLayeredLabels(dir, path);
    artifact.member = ReadMembership(dir, path);
    LocateMigratedLayer(dir, artifact.manifest);
  }
  for (const Layer& layer : artifact.manifest.layers) OpenLayerIn(dir, path, layer);
  return artifact;
}

// Opens the artifact or the group's head in an open directory.
std::optional<Artifact> TryOpenAtOrHead(int dir, const std::filesystem::path& path) {
  const auto head = ReadGroupHead(dir, path);
  if (!head) return TryOpenAt(dir, path);
  const Entry member = base::OpenEntryAt(dir, *head);
  if (member.type != EntryType::kDirectory) {
    Throw(ErrorKind::kSnapshotIntegrity, "group {} has no member {}, its head", path.native(),
          *head);
  }
  return TryOpenAt(member.fd.get(), path / *head);
}

// The directory that a name is under the snapshots directory.
UniqueFd OpenNamed(const std::filesystem::path& snapshots_dir, const std::string& name) {
  const UniqueFd parent = base::TryOpenDirectory(snapshots_dir);
  if (!parent) NotFound(snapshots_dir / name);
  Entry entry = base::OpenEntryAt(parent.get(), name);
  if (entry.type == EntryType::kAbsent) NotFound(snapshots_dir / name);
  if (entry.type != EntryType::kDirectory) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} must be a directory, but is {}",
          (snapshots_dir / name).native(), base::Describe(entry.type));
  }
  return std::move(entry.fd);
}

// The visible subdirectories of an open directory.
std::vector<std::string> Subdirectories(int dir) {
  std::vector<std::string> names;
  for (base::DirectoryEntry& entry : base::ListDirectory(dir)) {
    if (entry.type == EntryType::kDirectory && !entry.name.starts_with('.')) {
      names.push_back(std::move(entry.name));
    }
  }
  return names;
}

Artifact OpenMember(const std::filesystem::path& snapshots_dir, const std::string& group,
                    const std::string& name) {
  const UniqueFd dir = OpenNamed(snapshots_dir, group);
  const std::filesystem::path path = snapshots_dir / group;
  std::optional<Error> damaged;  // A member whose name cannot be told; it may be this one.
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
    if (auto artifact = TryOpenAt(member.fd.get(), path / id)) return *artifact;
  }
  if (damaged) throw *damaged;
  Throw(ErrorKind::kSnapshotNotFound, "group {} has no snapshot '{}'", path.native(),
        base::Quoted(name));
}

enum class Groups { kEnter, kIgnore };

void Walk(const Context& ctx, int dir, const std::filesystem::path& path, Groups groups,
          const std::function<void(Artifact)>& found,
          const std::function<void(std::string_view message)>& malformed) {
  for (const std::string& name : Subdirectories(dir)) {
    ctx.Check();
    try {
      const Entry child = base::OpenEntryAt(dir, name);
      if (child.type != EntryType::kDirectory) continue;
      if (groups == Groups::kEnter && ReadGroupHead(child.fd.get(), path / name)) {
        Walk(ctx, child.fd.get(), path / name, Groups::kIgnore, found, malformed);
      } else if (auto artifact = TryOpenAt(child.fd.get(), path / name)) {
        found(*std::move(artifact));
      }
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kSnapshotIntegrity && e.kind() != ErrorKind::kIO) throw;
      malformed(e.what());
    }
  }
}

}  // namespace

std::string Artifact::Name() const { return member ? member->name : path.filename().native(); }

bool IsPath(std::string_view path_or_name) {
  return path_or_name.find('/') != std::string_view::npos || path_or_name.starts_with('.') ||
         path_or_name.starts_with('~');
}

Artifact OpenArtifactAt(const std::filesystem::path& path) {
  const UniqueFd dir = base::TryOpenDirectory(path);
  if (!dir) NotFound(path);
  auto artifact = TryOpenAtOrHead(dir.get(), path);
  if (!artifact) NotFound(path);
  return *std::move(artifact);
}

Artifact OpenArtifact(const std::filesystem::path& snapshots_dir, const std::string& path_or_name) {
  if (IsPath(path_or_name)) return OpenArtifactAt(base::AbsolutePath(path_or_name));
  const std::size_t colon = path_or_name.find(':');
  const std::string name = path_or_name.substr(0, colon);
  base::CheckBareName("snapshot", name, 255);
  if (colon != std::string::npos) {
    return OpenMember(snapshots_dir, name, path_or_name.substr(colon + 1));
  }
  const UniqueFd dir = OpenNamed(snapshots_dir, name);
  auto artifact = TryOpenAtOrHead(dir.get(), snapshots_dir / name);
  if (!artifact) NotFound(snapshots_dir / name);
  return *std::move(artifact);
}

UniqueFd OpenLayer(const Artifact& artifact, const Layer& layer) {
  const UniqueFd dir = base::TryOpenDirectory(artifact.path);
  if (!dir) NotFound(artifact.path);
  return OpenLayerIn(dir.get(), artifact.path, layer);
}

void WalkArtifacts(const Context& ctx, const std::filesystem::path& dir,
                   const std::function<void(Artifact)>& found,
                   const std::function<void(std::string_view message)>& malformed) {
  if (const UniqueFd root = base::TryOpenDirectory(dir)) {
    Walk(ctx, root.get(), dir, Groups::kEnter, found, malformed);
  }
}

std::optional<Manifest> ReadManifest(const std::filesystem::path& path) {
  const UniqueFd dir = base::TryOpenDirectory(path);
  if (!dir) return std::nullopt;
  try {
    const auto file = ReadManifestFile(dir.get(), path);
    if (file) return ParseManifestFile(*file);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kSnapshotIntegrity) throw;
  }
  return std::nullopt;
}

void CheckUnreplaced(const vmm::BackingFile& file) {
  const std::filesystem::path place = file.disk.path.parent_path();
  const auto now = ReadManifest(place);  // Nothing beside an image.
  if (!now || DiskFileName(now->digest, file.disk.format) == file.name) return;
  base::Throw(ErrorKind::kSnapshotNotFound,
              "{} was replaced while it was read: expected {}, found {}", place.native(), file.name,
              now->digest);
}

bool HoldsArtifact(const std::filesystem::path& path) {
  const UniqueFd dir = base::TryOpenDirectory(path);
  if (!dir) return false;
  // Other software has files called manifest.json too.
  if (ReadManifest(path)) return true;
  bool has_manifest = false;
  for (const base::DirectoryEntry& entry : base::ListDirectory(dir.get())) {
    const bool is_manifest = entry.name == "manifest.json" || entry.name == "snapshot.json";
    has_manifest |= is_manifest && entry.type == EntryType::kRegularFile;
    if (!is_manifest && !IsArtifactFile(entry.name)) return false;
  }
  return has_manifest;
}

std::optional<Integrity> VerifyLayer(const Context& ctx, const Artifact& artifact,
                                     const Layer& layer) {
  if (!layer.integrity) return std::nullopt;
  const UniqueFd fd = OpenLayer(artifact, layer);
  const base::FileStamp before = base::StampOf(fd.get());
  const std::string path = (artifact.path / layer.file).native();
  const auto check_unchanged = [&] {
    if (before.SameContent(base::StampOf(fd.get()))) return;
    Throw(ErrorKind::kSnapshotIntegrity, "{} changed while it was verified", path);
  };
  Integrity found;
  try {
    found = ComputeIntegrity(ctx, fd.get(), before.size, layer.integrity->algorithm);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kIO) check_unchanged();
    throw;
  }
  check_unchanged();
  if (found != *layer.integrity) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} is not what was recorded: expected {} {}, found {}",
          path, layer.integrity->algorithm, layer.integrity->digest, found.digest);
  }
  return found;
}

}  // namespace msb::artifact
