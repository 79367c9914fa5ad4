// SPDX-License-Identifier: Apache-2.0

#include "src/handle/index_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "src/base/owner.h"
#include "src/base/staging.h"
#include "src/base/throw.h"
#include "src/index/own_database.h"

namespace msb::handle {
namespace {

using base::DatabaseError;
using index::Index;
using Cause = DatabaseError::Cause;

// Returns true for errors that are solved by replacing a database of this library's own.
bool IsReplaceable(Cause cause) {
  return cause == Cause::kDamaged || cause == Cause::kNoTable || cause == Cause::kWrongSchema ||
         cause == Cause::kRefused;
}

[[noreturn]] void RefuseDamagedRuntime(const Error& error) {
  throw DatabaseError(
      Cause::kDamaged, ErrorKind::kIO,
      fmt::format(
          "{}. It belongs to the microsandbox runtime, so this library does not replace it; "
          "without it, snapshots are found by their artifacts",
          error.what()));
}

// Returns true for errors that mean that a database cannot be opened or read, so that a substitute
// is needed.
bool IsInaccessible(const Error& error) {
  const auto* database = dynamic_cast<const DatabaseError*>(&error);
  if (database != nullptr) return database->cause() == Cause::kInaccessible;
  return error.kind() == ErrorKind::kIO;
}

// The path of the runtime's database, if there is one. is_known is false if that cannot be found
// out.
struct RuntimePlace {
  std::optional<std::filesystem::path> path = {};
  bool is_known = true;
};

RuntimePlace LookUpRuntime(const base::Home& home) {
  try {
    return {.path = home.FindRuntimeDatabase()};
  } catch (const DatabaseError& e) {
    if (!IsInaccessible(e)) throw;
    return {.is_known = false};
  }
}

base::FileStamp StampIfThere(const std::filesystem::path& path) {
  try {
    return base::StampOf(path).value_or(base::FileStamp{});
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kIO) throw;
    return {};
  }
}

}  // namespace

IndexStore::IndexStore(base::Home home, Log log, Fill fill)
    : home_(std::move(home)), log_(std::move(log)), fill_(std::move(fill)) {}

IndexStore::~IndexStore() {
  if (connection_->generation != base::ForkGeneration()) base::KeepForever(std::move(connection_));
}

std::shared_ptr<IndexStore::Connection> IndexStore::OwnConnection() {
  const base::ForkSafeSection section;
  const std::lock_guard lock(mutex_);
  if (connection_->generation != base::ForkGeneration()) {
    base::KeepForever(std::exchange(connection_, std::make_shared<Connection>()));
  }
  return connection_;
}

void IndexStore::Replace(const std::string& reason, std::vector<std::string>& warnings) {
  const std::filesystem::path aside = index::SetAside(home_.OwnDatabase());
  warnings.push_back(
      fmt::format("the index of {} could not be used, so it was set aside as {} and rebuilt from "
                  "the artifacts: {}",
                  home_.path().native(), aside.native(), reason));
}

Index IndexStore::OpenOwn(const Context& ctx, std::vector<std::string>& warnings) {
  const std::filesystem::path path = home_.OwnDatabase();
  if (const auto misplaced = index::FindMisplaced(path)) Replace(*misplaced, warnings);
  if (const auto unwritable = index::FindUnwritableLog(path)) Replace(*unwritable, warnings);
  const bool was_shared = index::Unshare(path);
  // An index that lacks artifacts which could not be read is not marked as built, so that the next
  // client looks for them again.
  const auto fill = [&](Index& index) {
    if (fill_(ctx, index, warnings) && !index.IsBuilt()) index.MarkBuilt();
  };
  try {
    Index index = Index::OpenOwn(path, ctx);
    if (was_shared || !index.IsBuilt()) fill(index);
    return index;
  } catch (const DatabaseError& e) {
    if (!IsReplaceable(e.cause())) throw;
    Replace(e.what(), warnings);
  }
  Index index = Index::OpenOwn(path, ctx);
  fill(index);
  return index;
}

Index IndexStore::Open(const Context& ctx, bool is_runtime, const std::filesystem::path& path,
                       std::vector<std::string>& warnings) {
  // Only one process at a time creates a database, or moves from this library's own to the
  // runtime's.
  const base::UniqueFd dir = base::MakeDirectory(home_.DatabaseDir());
  base::Lock(ctx, dir.get());
  if (!is_runtime) return OpenOwn(ctx, warnings);
  Index index = Index::OpenRuntime(path, ctx);
  const std::filesystem::path own = home_.OwnDatabase();
  // A table that this library cannot write is used as it is.
  if (index.IsWritable() && base::StampOf(own) && fill_(ctx, index, warnings)) {
    index::RemoveDatabase(own);
  }
  return index;
}

bool IndexStore::Connect(const Context& ctx, Connection& connection, Access access,
                         std::vector<std::string>& warnings) {
  const auto runtime = home_.FindRuntimeDatabase();
  const std::filesystem::path path = runtime.value_or(home_.OwnDatabase());
  const auto stamp = base::StampOf(path);
  if (!stamp && !runtime && access == Access::kRead && !base::BelongsToThisUser(home_.path())) {
    return false;
  }
  const bool same = connection.index && connection.index->path() == path && stamp &&
                    stamp->device == connection.opened.device &&
                    stamp->inode == connection.opened.inode && (runtime || stamp->links == 1);
  if (!same) {
    connection.index.reset();
    Index index = [&] {
      try {
        return Open(ctx, runtime.has_value(), path, warnings);
      } catch (const DatabaseError& e) {
        if (runtime && e.cause() == Cause::kDamaged) RefuseDamagedRuntime(e);
        throw;
      }
    }();
    connection.opened = base::StampOf(path).value_or(base::FileStamp{});
    connection.index = std::move(index);
  }
  connection.index->Bind(ctx);
  if (!connection.substitute) return true;
  if (connection.substitute->changed) fill_(ctx, *connection.index, warnings);
  connection.substitute.reset();
  connection.logged.clear();
  return true;
}

std::vector<base::FileStamp> IndexStore::Sources(const std::filesystem::path& database) const {
  std::vector<base::FileStamp> stamps = {StampIfThere(database),
                                         StampIfThere(database.native() + "-wal")};
  const base::UniqueFd dir = base::OpenDirectoryUnlessAbsent(home_.snapshots_dir());
  stamps.push_back(dir ? base::StampOf(dir.get()) : base::FileStamp{});
  return stamps;
}

IndexStore::Substitute IndexStore::MakeSubstitute(const Context& ctx,
                                                  std::vector<std::string>& warnings) {
  const RuntimePlace runtime = LookUpRuntime(home_);
  const std::filesystem::path own = home_.OwnDatabase();
  std::vector<base::FileStamp> sources = Sources(runtime.path.value_or(own));
  try {
    Substitute copy{.index = runtime.path ? Index::CopyOfRuntime(*runtime.path, ctx)
                                          : Index::CopyOfOwn(own, ctx),
                    .sources = sources,
                    .knows_era = runtime.is_known};
    // A table of the runtime that this library cannot write is used as it is.
    if (!runtime.path || copy.index.IsWritable()) fill_(ctx, copy.index, warnings);
    return copy;
  } catch (const DatabaseError& e) {
    if (runtime.path && e.cause() == Cause::kDamaged) RefuseDamagedRuntime(e);
    if (e.cause() == Cause::kLocked || (runtime.path && !IsInaccessible(e))) throw;
  }
  Substitute fresh{.index = Index::InMemory(own),
                   .sources = std::move(sources),
                   .knows_era = runtime.is_known && !runtime.path};
  fill_(ctx, fresh.index, warnings);
  return fresh;
}

IndexStore::Substitute& IndexStore::Substituted(const Context& ctx, Connection& connection,
                                                std::vector<std::string>& warnings) {
  const auto same_content = [](const base::FileStamp& a, const base::FileStamp& b) {
    return a.IsUntouched(b);
  };
  auto& substitute = connection.substitute;
  const auto sources = Sources(LookUpRuntime(home_).path.value_or(home_.OwnDatabase()));
  const bool is_current =
      substitute && std::equal(sources.begin(), sources.end(), substitute->sources.begin(),
                               substitute->sources.end(), same_content);
  if (!is_current) {
    const bool changed = substitute && substitute->changed;
    substitute.emplace(MakeSubstitute(ctx, warnings));
    substitute->changed = changed;
  }
  substitute->index.Bind(ctx);
  return *substitute;
}

void IndexStore::WarnOnce(Connection& connection, const Error& refusal,
                          std::vector<std::string>& warnings) const {
  if (connection.logged == refusal.what()) return;
  connection.logged = refusal.what();
  warnings.push_back(fmt::format(
      "the index of {} cannot be written: {}; until it can be, this process reads the artifacts "
      "instead, and records no changes in it",
      home_.path().native(), refusal.what()));
}

void IndexStore::ReplaceDamaged(const Context& ctx, Connection& connection,
                                const DatabaseError& error, std::vector<std::string>& warnings) {
  const base::UniqueFd dir = base::MakeDirectory(home_.DatabaseDir());
  base::Lock(ctx, dir.get());
  connection.index.reset();
  // Another process may have replaced it already.
  const auto now = base::StampOf(home_.OwnDatabase());
  if (now && now->device == connection.opened.device && now->inode == connection.opened.inode) {
    Replace(error.what(), warnings);
  }
}

IndexStore::Session::Session(IndexStore& store, const Context& ctx, Access access,
                             const std::optional<Error>& refusal)
    : store_(store),
      ctx_(ctx),
      connection_(store.OwnConnection()),
      lock_(connection_->in_use, std::defer_lock),
      refusal_(refusal) {
  ctx.Check();
#ifdef __SANITIZE_THREAD__
  // ThreadSanitizer does not support waits on the steady clock.
  while (!lock_.try_lock_until(std::chrono::system_clock::now() + kPause)) ctx.Check();
#else
  while (!lock_.try_lock_for(kPause)) ctx.Check();
#endif
  try {
    if (!refusal_) {
      try {
        if (store.Connect(ctx, *connection_, access, warnings_)) {
          index_ = &*connection_->index;
          return;
        }
        refusal_ = Error(ErrorKind::kIO, fmt::format("{} is absent, and reading does not create it",
                                                     store.home_.OwnDatabase().native()));
      } catch (const Error& e) {
        if (!IsInaccessible(e)) throw;
        refusal_ = e;
        store.WarnOnce(*connection_, e, warnings_);
      }
    } else {
      store.WarnOnce(*connection_, *refusal_, warnings_);
    }
    index_ = &store.Substituted(ctx, *connection_, warnings_).index;
  } catch (...) {
    Release();
    throw;
  }
}

IndexStore::Session::~Session() {
  if (index_ != nullptr) index_->Bind(Context::Background());
  Release();
}

bool IndexStore::Session::Recover(const DatabaseError& error, std::optional<Error>& refusal) {
  if (refusal_ || error.cause() == Cause::kLocked) return false;
  const bool is_own = index_->path() == store_.home_.OwnDatabase();
  if (error.cause() == Cause::kInaccessible) {
    refusal = error;
    if (is_own) {
      // The next call opens it again, because a program on another mount of the home may have given
      // it a journal that this file system does not support.
      index_ = nullptr;
      connection_->index.reset();
    }
    return true;
  }
  if (!is_own) {
    if (error.cause() == Cause::kDamaged) RefuseDamagedRuntime(error);
    return false;
  }
  index_ = nullptr;
  try {
    store_.ReplaceDamaged(ctx_, *connection_, error, warnings_);
  } catch (const Error& e) {
    if (!IsInaccessible(e)) throw;
    connection_->index.reset();
    refusal = error;  // The database cannot be set aside.
  }
  return true;
}

void IndexStore::Session::Release() {
  lock_.unlock();
  for (const std::string& warning : warnings_) store_.log_(warning);
}

void IndexStore::Session::NoteUnwritten() {
  if (refusal_) connection_->substitute->changed = true;
}

bool IndexStore::Session::KnowsEra() const {
  return !refusal_ || connection_->substitute->knows_era;
}

}  // namespace msb::handle
