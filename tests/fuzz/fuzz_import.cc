// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes ImportArchive with untrusted archives, and checks its result and what it leaves on disk.

#include <sys/statvfs.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "src/archive/image_files.h"
#include "src/archive/import.h"
#include "src/artifact/disk_chain.h"
#include "src/artifact/store.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/properties.h"

// Replaces the function of the C library. An archive of a few bytes may have disks as large as the
// free space, and hashing their holes takes long. So this reports little free space, and the
// library refuses anything larger. Limiting the inputs instead would leave that refusal untested.
extern "C" int fstatvfs(int /*fd*/, struct statvfs* result) noexcept {
  constexpr unsigned long kFreeBytes = 8 << 20;  // Several regions of disk/scan.h.
  *result = {};
  result->f_frsize = 4096;
  result->f_bavail = kFreeBytes / result->f_frsize;
  return 0;
}

// Each import allocates a few blocks of 1 MiB. A larger quarantine, in which AddressSanitizer keeps
// freed memory from reuse, would give it new pages every time, which takes longer than the import.
extern "C" const char* __asan_default_options() { return "quarantine_size_mb=8"; }

namespace msb::fuzz {
namespace {

namespace fs = std::filesystem;

using archive::IntakeSpec;
using artifact::Artifact;
using Artifacts = std::vector<Artifact>;
using Paths = std::set<std::string>;

// A Home is an empty directory for one input, on tmpfs if available, where flushes are free.
class Home {
 public:
  Home() {
    std::error_code error;
    const fs::path parent =
        fs::is_directory("/dev/shm", error) ? fs::path("/dev/shm") : fs::temp_directory_path();
    std::string path = parent / "msb-fuzz-XXXXXX";
    Require(mkdtemp(path.data()) != nullptr, "there is a place for temporary files");
    path_ = path;
  }
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;
  ~Home() { fs::remove_all(path_); }

  const fs::path& path() const { return path_; }
  // The parents of both directories do not exist at first.
  fs::path Destination(const std::string& name) const { return path_ / name / "snapshots"; }
  fs::path Cache() const { return path_ / "shared" / "cache"; }

 private:
  fs::path path_;
};

std::ptrdiff_t CountEntries(const char* directory) {
  return std::distance(fs::directory_iterator(directory), {});
}

// Requires that no thread is left. A joined thread stays listed for a moment.
void RequireThreads(std::ptrdiff_t expected) {
  for (int i = 0; i < 1000 && CountEntries("/proc/self/task") > expected; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  Require(CountEntries("/proc/self/task") <= expected, "no thread is left");
}

// Returns the paths below dir, all of which must be files or directories.
Paths PathsBelow(const fs::path& dir) {
  Paths paths;
  if (!fs::exists(dir)) return paths;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    const fs::file_type type = entry.symlink_status().type();
    Require(type == fs::file_type::regular || type == fs::file_type::directory,
            "only files and directories are made");
    paths.insert(entry.path().lexically_relative(dir).native());
  }
  return paths;
}

// Imports an archive. Returns nothing if it is refused with an error of these kinds.
std::optional<Artifacts> Import(const fs::path& archive, const IntakeSpec& spec,
                                std::initializer_list<ErrorKind> kinds) {
  return Accepted([&] { return archive::ImportArchive(Context::Background(), archive, spec); },
                  kinds);
}

void CheckArtifact(const Artifact& artifact) {
  artifact::OpenedArtifact files = artifact::OpenAt(Context::Background(), artifact.path);
  const Artifact& opened = files.artifact;
  Require(Same(opened.manifest, artifact.manifest), "an artifact is what was returned");
  CheckParsed(opened.manifest, opened.manifest.form);
  Require(!opened.member, "an artifact is in no group");
  std::vector<artifact::DiskFile> layers;
  for (std::size_t i = 0; i < files.layers.size(); ++i) {
    layers.push_back(artifact::FileOfLayer(files, i));
  }
  const auto found = artifact::VerifyFiles(Context::Background(), layers);
  for (std::size_t i = 0; i < found.size(); ++i) {
    Require(found[i] == opened.manifest.layers[i].integrity, "layers are what is recorded");
  }
}

// Requires everything in the destination to belong to these artifacts.
void CheckDestination(const fs::path& destination, const Artifacts& artifacts) {
  Require(!artifacts.empty(), "an archive has a snapshot");
  Paths allowed;
  for (const Artifact& artifact : artifacts) {
    Require(artifact.path.parent_path() == destination, "artifacts are in the destination");
    const fs::path name = artifact.path.filename();
    Require(allowed.insert(name).second, "each artifact has its own directory");
    const artifact::ManifestForm form = artifact.manifest.form;
    allowed.insert(name / ManifestFileName(form));
    if (form == artifact::ManifestForm::kLayered) {
      allowed.insert({name / "metadata.json", name / "layers"});
    }
    for (const artifact::Layer& layer : artifact.manifest.layers) {
      allowed.insert(name / layer.file);
    }
  }
  for (const std::string& path : PathsBelow(destination)) {
    Require(allowed.contains(path), "nothing else is in the destination");
  }
}

// Requires everything in the cache to belong to images of these artifacts. Each image must be there
// completely or not at all.
void CheckCache(const fs::path& cache, const Artifacts& artifacts) {
  Paths expected;
  for (const Artifact& artifact : artifacts) {
    try {
      for (const std::string& file : archive::FilesOfImage(cache, artifact.manifest.image)) {
        expected.insert({file, file.substr(0, file.find('/'))});
      }
    } catch (const Error& e) {
      Require(e.kind() == ErrorKind::kSnapshotImageMissing, "images in the cache are sound");
    }
  }
  Require(PathsBelow(cache) == expected, "nothing else is in the cache");
}

// Imports the same archive again: to the same destination, and to another one beside it.
void CheckAgain(const fs::path& archive, const IntakeSpec& first, const fs::path& beside,
                std::size_t count) {
  const Paths artifacts = PathsBelow(first.destination);
  const Paths images = PathsBelow(first.cache_dir);
  Require(!Import(archive, first, {ErrorKind::kSnapshotAlreadyExists}),
          "nothing is imported twice");
  Require(PathsBelow(first.destination) == artifacts, "artifacts that are there stay");
  // Without images, this has been tested already.
  if (!images.empty()) {
    const auto again = Import(archive, {beside, first.cache_dir}, {});
    Require(again && again->size() == count, "images that are there do not matter");
  }
  Require(PathsBelow(first.cache_dir) == images, "images that are there stay");
}

void CheckImport(const fs::path& archive) {
  const Home home;
  const IntakeSpec spec{home.Destination("first"), home.Cache()};
  const auto artifacts = Import(archive, spec,
                                {ErrorKind::kSnapshotIntegrity, ErrorKind::kUnsupportedOperation,
                                 ErrorKind::kSnapshotNotFound});
  if (!artifacts) return Require(fs::is_empty(home.path()), "what is refused leaves nothing");
  for (const Artifact& artifact : *artifacts) CheckArtifact(artifact);
  CheckDestination(spec.destination, *artifacts);
  CheckCache(spec.cache_dir, *artifacts);
  CheckAgain(archive, spec, home.Destination("beside"), artifacts->size());
}

}  // namespace
}  // namespace msb::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace msb::fuzz;
  static const MemoryFile archive("archive");
  archive.Fill(AsText(data, size));
  const std::ptrdiff_t threads = CountEntries("/proc/self/task");
  const std::ptrdiff_t files = CountEntries("/proc/self/fd");
  CheckImport(archive.Path());
  RequireThreads(threads);
  Require(CountEntries("/proc/self/fd") == files, "no file is left open");
  return 0;
}
