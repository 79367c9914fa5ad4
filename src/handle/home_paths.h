// HomePaths holds the paths of a home, and resolves the paths in rows of its index. The home may
// have been moved or copied since its rows were written, and symbolic links may give it several
// names.

#ifndef MSB_SRC_HANDLE_HOME_PATHS_H_
#define MSB_SRC_HANDLE_HOME_PATHS_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "src/index/row.h"

namespace msb::handle {

// Returns the path of the runtime's database in a home.
std::filesystem::path RuntimeDatabase(const std::filesystem::path& home);

// Returns the path of the runtime's database in a home, or of the file that a symbolic link there
// leads to. Returns nullopt if it is absent. Throws a DatabaseError (kIO) with the cause
// kInaccessible if it cannot be looked up, and with the cause kDamaged if it is not a regular file.
std::optional<std::filesystem::path> FindRuntimeDatabase(const std::filesystem::path& home);

class HomePaths {
 public:
  HomePaths(std::filesystem::path home, std::filesystem::path snapshots_dir)
      : home_(std::move(home)), snapshots_dir_(std::move(snapshots_dir)) {}

  const std::filesystem::path& home() const { return home_; }
  const std::filesystem::path& snapshots_dir() const { return snapshots_dir_; }
  // Returns the path of this library's own index.
  std::filesystem::path OwnDatabase() const { return home_ / "db" / "snapshots.db"; }

  // Returns true if path begins with the path of the home or of its snapshots directory.
  bool IsOwn(const std::filesystem::path& path) const;
  // If path leads into the home or its snapshots directory through symbolic links, returns the same
  // path spelled with the path of that directory; otherwise returns it unchanged. The last
  // component of an artifact's path is not followed, since an artifact is a directory.
  std::filesystem::path Respell(const std::filesystem::path& artifact) const;
  std::filesystem::path RespellDirectory(const std::filesystem::path& dir) const;

  // Returns the absolute path for a path, or for a name in the snapshots directory.
  std::filesystem::path PathOf(const std::string& path_or_name) const;

  // Returns the row with the path of the artifact that it refers to in this home. A row whose path
  // is in the home is returned unchanged, without accessing the disk. A row whose path is outside
  // of the home refers to the artifact of the same name in the snapshots directory, if that
  // artifact has the same digest and no row of its own (has_row). Returns nullopt if there is no
  // such artifact and the path leads into another home, of which this home is a copy.
  using HasRow = std::function<bool(const std::filesystem::path& path)>;
  std::optional<index::Row> Resolve(index::Row row, const HasRow& has_row) const;

 private:
  std::optional<std::filesystem::path> CounterpartOf(const index::Row& row,
                                                     const HasRow& has_row) const;
  bool IsInAnotherHome(const std::filesystem::path& artifact) const;

  std::filesystem::path home_;
  std::filesystem::path snapshots_dir_;
};

// Returns true if key, a name, path or digest, is a digest.
bool IsDigestKey(std::string_view key);

// Returns true if the directory has a valid manifest with this digest.
bool HasDigest(const std::filesystem::path& artifact, const std::string& digest);

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_HOME_PATHS_H_
