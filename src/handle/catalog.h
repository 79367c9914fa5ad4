// The index of a home, kept in step with its artifacts: which database it is in, what a name, a
// digest or a path leads to, and the changes that touch both.
//
// Safe to use from several threads; several processes may have the same home.

#ifndef MSB_SRC_HANDLE_CATALOG_H_
#define MSB_SRC_HANDLE_CATALOG_H_

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/index/index.h"

namespace msb::handle {

// Where the runtime keeps its database below a home.
std::filesystem::path RuntimeDatabase(const std::filesystem::path& home);

class Catalog {
 public:
  using Log = std::function<void(std::string_view message)>;

  // log is called with no lock held, and may call the catalog.
  Catalog(std::filesystem::path home, std::filesystem::path snapshots_dir, Log log);

  // kSnapshotNotFound.
  index::Row Get(const Context& ctx, const std::string& name_digest_or_path);
  // Newest first.
  std::vector<index::Row> List(const Context& ctx);
  // Adds an artifact, or brings its row up to date, and returns that. A failure is logged, not
  // thrown; the row is what it should have been then.
  index::Row Record(const Context& ctx, const artifact::Artifact& artifact);
  // The same for a copy that came from elsewhere: where a digest can have only one row, that of an
  // artifact which is still there stays.
  index::Row RecordCopy(const Context& ctx, const artifact::Artifact& artifact);
  std::uint32_t Reindex(const Context& ctx, const std::filesystem::path& dir);
  // Deletes the artifact and the row. kSnapshotNotFound, kSnapshotHasChildren;
  // kUnsupportedOperation: a member of a 0.7 group.
  void Remove(const Context& ctx, const std::string& name_digest_or_path, bool force);

  // True if the home's runtime is from before the descriptor generation. An index that cannot be
  // read is logged, and tells nothing.
  bool RuntimePredatesDescriptors(const Context& ctx);

 private:
  class Session;

  // The runtime's or the own database, opened if need be. For sessions.
  index::Index& Connect(const Context& ctx, std::vector<std::string>& warnings);
  index::Index OpenOwnOrReplace(std::vector<std::string>& warnings) const;
  std::uint32_t Rebuild(const Context& ctx, index::Index& index, const std::filesystem::path& dir,
                        std::vector<std::string>& warnings) const;
  std::optional<index::Row> Find(const index::Index& index, const std::string& key) const;
  index::Row RowFor(const index::Index& index, const artifact::Artifact& artifact) const;

  const std::filesystem::path home_;
  const std::filesystem::path snapshots_dir_;
  const Log log_;
  std::mutex mutex_;
  std::condition_variable released_;
  bool in_use_ = false;  // Guarded by mutex_: a session has what follows.
  std::optional<index::Index> index_;
  base::FileStamp opened_;  // Of the file that index_ is.
};

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_CATALOG_H_
