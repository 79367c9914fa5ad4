// SPDX-License-Identifier: Apache-2.0

#include "src/index/own_database.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <set>
#include <string_view>
#include <vector>

#include "src/base/file.h"
#include "src/base/owner.h"
#include "src/base/staging.h"
#include "src/base/throw.h"
#include "src/base/time.h"

namespace msb::index {
namespace {

using base::EntryType;

// The database comes last. Without its log it is an earlier state of itself, but a new database
// with the log of an old one would be damaged.
constexpr std::array<std::string_view, 4> kSuffixes = {"-wal", "-shm", "-journal", ""};
constexpr std::string_view kAside = ".damaged-";
constexpr std::size_t kMaxSetAside = 3;
// In bytes. A larger database is read again from the artifacts instead of copied.
constexpr std::size_t kMaxCopied = std::size_t{256} << 20;

std::string Without(std::string name, std::string_view suffix) {
  if (!suffix.empty() && name.ends_with(suffix)) name.resize(name.size() - suffix.size());
  return name;
}

// Deletes a file or an empty directory. Anything else, such as a directory with files, stays.
void Discard(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove(path, error);
}

// Deletes all databases that were set aside, except the last kMaxSetAside.
void PruneSetAside(int dir, const std::filesystem::path& database) {
  const std::string prefix = database.filename().native() + std::string(kAside);
  std::set<std::string> kept;  // Sorted by time.
  std::vector<std::string> names;
  for (const base::DirectoryEntry& entry : base::ListDirectory(dir)) {
    if (!entry.name.starts_with(prefix)) continue;
    names.push_back(entry.name);
    std::string base_name = entry.name;
    for (const std::string_view suffix : kSuffixes) base_name = Without(base_name, suffix);
    kept.insert(base_name);
  }
  while (kept.size() > kMaxSetAside) {
    const std::string oldest = *kept.begin();
    kept.erase(kept.begin());
    for (const std::string& name : names) {
      if (name.starts_with(oldest)) Discard(database.parent_path() / name);
    }
  }
}

bool IsShared(const std::filesystem::path& path) {
  const auto stamp = base::StampOf(path);
  return stamp && stamp->links > 1;
}

// Replaces a file that has other names by a copy with one name. Returns whether it had other names.
// Never opens a file with one name: closing it again would release the locks that SQLite has on it
// in this process.
bool UnshareFile(int dir, const std::filesystem::path& path) {
  if (!IsShared(path)) return false;
  const std::string name = path.filename();
  const base::Entry file = base::OpenEntryAt(dir, name);
  if (file.type != EntryType::kRegularFile) return false;
  const auto content = base::ReadAll(file.fd.get(), kMaxCopied);
  const base::FileStamp stamp = base::StampOf(file.fd.get());
  base::ReplaceFileInStage(path.parent_path(), name, content.value_or(std::string()),
                           stamp.mode | 0600);
  base::GiveToOwnerOf(base::OpenEntryAt(dir, name).fd.get(), dir);
  return true;
}

}  // namespace

std::optional<std::string> FindMisplaced(const std::filesystem::path& database) {
  const base::UniqueFd dir = base::OpenDirectory(database.parent_path());
  for (const std::string_view suffix : kSuffixes) {
    const std::string name = database.filename().native() + std::string(suffix);
    const EntryType type = base::TypeAt(dir.get(), name);
    if (type == EntryType::kAbsent || type == EntryType::kRegularFile) continue;
    return fmt::format("{} must be a regular file, but is {}",
                       (database.parent_path() / name).native(), Describe(type));
  }
  return std::nullopt;
}

std::optional<std::string> FindUnwritableLog(const std::filesystem::path& database) {
  // A user who does not own the database must not take it from its owner.
  if (!base::MayReadAndWrite(database) || !base::BelongsToThisUser(database)) return std::nullopt;
  for (const std::string_view suffix : kSuffixes) {
    const std::string path = database.native() + std::string(suffix);
    errno = 0;
    if (base::MayReadAndWrite(path) || errno != EACCES) continue;
    return fmt::format("this user may not write {}, which another user left", path);
  }
  return std::nullopt;
}

std::filesystem::path SetAside(const std::filesystem::path& database) {
  const base::UniqueFd dir = base::OpenDirectory(database.parent_path());
  const std::string name = database.filename();
  std::string time;  // Digits only.
  for (const char c : base::FormatIndexTime(base::UtcTime::Now())) {
    if (c >= '0' && c <= '9') time += c;
  }
  const std::string aside = fmt::format("{}{}{}-{}", name, kAside, time, base::RandomSuffix());
  for (const std::string_view suffix : kSuffixes) {
    const std::string from = name + std::string(suffix);
    if (base::TypeAt(dir.get(), from) == EntryType::kAbsent) continue;
    base::RenameOverAt(dir.get(), from, aside + std::string(suffix));
  }
  PruneSetAside(dir.get(), database);
  return database.parent_path() / aside;
}

bool Unshare(const std::filesystem::path& database) {
  const base::UniqueFd dir = base::OpenDirectory(database.parent_path());
  // The database comes last: as long as it is shared, the next call does this again.
  bool changed = UnshareFile(dir.get(), database.native() + "-wal");
  const std::filesystem::path shared_memory = database.native() + "-shm";
  if (IsShared(shared_memory)) changed |= base::RemoveFile(shared_memory);
  changed |= UnshareFile(dir.get(), database);
  return changed;
}

void RemoveDatabase(const std::filesystem::path& database) {
  for (const std::string_view suffix : kSuffixes) {
    base::RemoveFile(database.native() + std::string(suffix));
  }
}

}  // namespace msb::index
