// SPDX-License-Identifier: Apache-2.0
//
// A Home holds the directories of a client, and determines the paths in them that more than one
// module uses:
//
//   HOME/db/msb.db                        the runtime's database
//   HOME/db/snapshots.db                  this library's own index
//   SNAPSHOTS/NAME/                       artifacts
//   SANDBOXES/NAME/                       sandboxes
//   CACHE/disks/sha256_HEX.{raw,qcow2}    disk images
//   CACHE/disks/pins/                     the digests of the files that they were copied from
//   CACHE/registries.json                 where snapshots were pushed to and pulled from
//   CACHE/{layers,fsmeta,vmdk,manifests}  images of the runtimes (src/archive/image_names.h)
//
// SNAPSHOTS, SANDBOXES and CACHE are in HOME unless the client is configured otherwise. Symbolic
// links may give each directory several names.

#ifndef MSB_SRC_BASE_HOME_H_
#define MSB_SRC_BASE_HOME_H_

#include <filesystem>
#include <optional>
#include <string_view>

namespace msb::base {

class Home {
 public:
  // The name of the directory of disk images in the cache.
  static constexpr std::string_view kDisks = "disks";

  // The directories of a client; those that are empty are in the first.
  struct Directories {
    std::filesystem::path home;
    std::filesystem::path snapshots = {};
    std::filesystem::path sandboxes = {};
    std::filesystem::path cache = {};
  };

  // Makes the paths absolute with AbsolutePath, and throws what it throws.
  explicit Home(const Directories& directories);

  const std::filesystem::path& path() const { return path_; }
  const std::filesystem::path& snapshots_dir() const { return snapshots_dir_; }
  const std::filesystem::path& sandboxes_dir() const { return sandboxes_dir_; }
  const std::filesystem::path& cache_dir() const { return cache_dir_; }
  std::filesystem::path DisksDir() const { return cache_dir_ / kDisks; }
  std::filesystem::path PinsDir() const { return DisksDir() / "pins"; }
  std::filesystem::path RegistriesFile() const { return cache_dir_ / "registries.json"; }
  std::filesystem::path DatabaseDir() const;
  std::filesystem::path OwnDatabase() const;
  std::filesystem::path RuntimeDatabase() const;

  // Returns the path of the runtime's database, or of the file that a symbolic link there leads to.
  // Returns nullopt if it is absent. Throws a DatabaseError (kIO) with the cause kInaccessible if
  // it cannot be looked up, and with the cause kDamaged if it is not a regular file.
  std::optional<std::filesystem::path> FindRuntimeDatabase() const;

  // Returns true if path begins with the path of the home or of its snapshots directory.
  bool IsOwn(const std::filesystem::path& path) const;
  // Returns true if path is this home, regardless of its spelling.
  bool IsAt(const std::filesystem::path& path) const;
  // Returns true if there is a database in path, so that it is the home of some client.
  static bool IsHome(const std::filesystem::path& path);

  // If path leads into the home or its snapshots directory through symbolic links, returns the same
  // path spelled with the path of that directory; otherwise returns it unchanged. The last
  // component of an artifact's path is not followed, since an artifact is a directory.
  std::filesystem::path Respell(const std::filesystem::path& artifact) const;
  std::filesystem::path RespellDirectory(const std::filesystem::path& dir) const;

 private:
  std::filesystem::path path_;
  std::filesystem::path snapshots_dir_;
  std::filesystem::path sandboxes_dir_;
  std::filesystem::path cache_dir_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_HOME_H_
