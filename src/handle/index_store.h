// SPDX-License-Identifier: Apache-2.0
//
// IndexStore opens the index of a home: the runtime's database, or this library's own database. The
// index is only a cache of the artifacts, so it can usually be replaced if it is unusable:
//
//   * A database that cannot be opened or written (a read-only file system, a full disk, the home
//     of another user) is copied into memory, and brought up to date there from the artifacts. Each
//     call tries the database again.
//   * A damaged database of this library's own is set aside and rebuilt from the artifacts. So is
//     one with log files that another user left and that this process may not write.
//   * A damaged database of the runtime is left unchanged, and kIO is thrown; the message says what
//     to do.
//
// Safe to use from several threads; several processes may use the same home.

#ifndef MSB_SRC_HANDLE_INDEX_STORE_H_
#define MSB_SRC_HANDLE_INDEX_STORE_H_

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"
#include "src/base/file.h"
#include "src/base/fork.h"
#include "src/base/home.h"
#include "src/index/index.h"

namespace msb::handle {

class IndexStore {
 public:
  using Log = std::function<void(std::string_view message)>;
  // Brings the rows of the snapshots directory up to date. Returns false if an artifact was skipped
  // because it could not be read.
  using Fill = std::function<bool(const Context& ctx, index::Index& index,
                                  std::vector<std::string>& warnings)>;

  class Session;

  // The purpose of a use of the index. A use that only reads does not create a database in a home
  // that is absent or belongs to another user, who could not write to the database; it reads the
  // artifacts instead.
  enum class Access { kRead, kWrite };

  // log is called with no lock held, and may use the store.
  IndexStore(base::Home home, Log log, Fill fill);
  IndexStore(const IndexStore&) = delete;
  IndexStore& operator=(const IndexStore&) = delete;
  ~IndexStore();

  // Calls use(Session&) with the index, locked and bound to ctx, and returns the result of use. If
  // the database turns out to be unusable, calls use again with a replacement of the database, so
  // use must change nothing but the index.
  template <typename Use>
  auto With(const Context& ctx, const Use& use) {
    return With(ctx, Access::kWrite, use);
  }
  template <typename Use>
  auto With(const Context& ctx, Access access, const Use& use);

 private:
  // A Substitute is an index in memory that is used in place of a database, with the stamps of the
  // files that it was read from.
  struct Substitute {
    index::Index index;
    std::vector<base::FileStamp> sources;
    bool knows_era = true;  // The table is a copy of the runtime's table, or there is no runtime.
    bool changed = false;   // It has rows that the database may lack.
  };

  // The open index; used by one session at a time.
  struct Connection {
    const std::uint64_t generation = base::ForkGeneration();
    std::timed_mutex in_use;  // Guards the members below.
    std::optional<index::Index> index;
    base::FileStamp opened;  // The stamp of the file that index has open.
    std::optional<Substitute> substitute;
    std::string logged;  // The reason for using the substitute that was logged last.
  };

  // Returns the connection of this process. A forked process gets a new one, since another thread
  // of its parent may have been using the parent's.
  std::shared_ptr<Connection> OwnConnection();

  // Opens the runtime's database or this library's own, unless it is open already. Returns false if
  // there is none, and access does not permit creating one.
  bool Connect(const Context& ctx, Connection& connection, Access access,
               std::vector<std::string>& warnings);
  index::Index Open(const Context& ctx, bool is_runtime, const std::filesystem::path& path,
                    std::vector<std::string>& warnings);
  index::Index OpenOwn(const Context& ctx, std::vector<std::string>& warnings);
  void Replace(const std::string& reason, std::vector<std::string>& warnings);
  // Returns the substitute. Reads it again if the files that it was read from have changed.
  Substitute& Substituted(const Context& ctx, Connection& connection,
                          std::vector<std::string>& warnings);
  // Adds a warning that changes are not recorded, unless the last one had the same reason.
  void WarnOnce(Connection& connection, const Error& refusal,
                std::vector<std::string>& warnings) const;
  Substitute MakeSubstitute(const Context& ctx, std::vector<std::string>& warnings);
  // Returns the stamps of all files that the substitute depends on.
  std::vector<base::FileStamp> Sources(const std::filesystem::path& database) const;
  // Sets aside a damaged database of this library's own, unless another process already has, and
  // closes the connection to it.
  void ReplaceDamaged(const Context& ctx, Connection& connection, const base::DatabaseError& error,
                      std::vector<std::string>& warnings);

  const base::Home home_;
  const Log log_;
  const Fill fill_;
  std::mutex mutex_;  // Guards connection_; locked in a ForkSafeSection only.
  std::shared_ptr<Connection> connection_ = std::make_shared<Connection>();
};

// A Session represents the open index during one call, locked and bound to the call's Context. Logs
// its warnings after the lock is released.
class IndexStore::Session {
 public:
  // Uses the substitute if refusal, the reason why the database cannot be used, is set.
  Session(IndexStore& store, const Context& ctx, Access access,
          const std::optional<Error>& refusal);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  index::Index& index() { return *index_; }
  std::vector<std::string>& warnings() { return warnings_; }

  // Returns the reason why changes are not written to the database, or nullopt if they are.
  const std::optional<Error>& refusal() const { return refusal_; }
  // Must be called after a row was added. If the row was only added to the substitute, arranges
  // that the database is brought up to date once it can be written.
  void NoteUnwritten();
  // Returns false if the era of the runtime is unknown, because the runtime's database could not be
  // read at all.
  bool KnowsEra() const;

 private:
  friend class IndexStore;
  // The longest time between two checks of the Context.
  static constexpr auto kPause = std::chrono::milliseconds(50);

  // Prepares another attempt after a statement has failed. Returns false if another attempt cannot
  // help. Sets refusal if the attempt must use the substitute.
  bool Recover(const base::DatabaseError& error, std::optional<Error>& refusal);
  void Release();

  IndexStore& store_;
  const Context& ctx_;
  const std::shared_ptr<Connection> connection_;
  std::unique_lock<std::timed_mutex> lock_;
  index::Index* index_ = nullptr;
  std::optional<Error> refusal_;
  std::vector<std::string> warnings_;
};

template <typename Use>
auto IndexStore::With(const Context& ctx, Access access, const Use& use) {
  constexpr int kMaxAttempts = 4;
  std::optional<Error> refusal;
  for (int attempt = 1;; ++attempt) {
    Session session(*this, ctx, access, refusal);
    try {
      return use(session);
    } catch (const base::DatabaseError& e) {
      if (attempt == kMaxAttempts || !session.Recover(e, refusal)) throw;
    }
  }
}

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_INDEX_STORE_H_
