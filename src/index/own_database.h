// SPDX-License-Identifier: Apache-2.0
//
// Handles the files of a database of this library's own. The database is only a cache: if it is
// unusable, it is set aside and rebuilt from the artifacts.

#ifndef MSB_SRC_INDEX_OWN_DATABASE_H_
#define MSB_SRC_INDEX_OWN_DATABASE_H_

#include <filesystem>
#include <optional>
#include <string>

namespace msb::index {

// Checks the database file and the files that SQLite keeps beside it, before they are opened.
// Returns a description of the first file that is not a regular file, or nullopt if all are regular
// files or absent.
std::optional<std::string> FindMisplaced(const std::filesystem::path& database);

// Returns a description of the first file beside the database that this process may not write, if
// the database belongs to its user and can be written; otherwise returns nullopt. Such a file was
// left by another user who only read the index, and SQLite cannot write the database while it
// exists.
std::optional<std::string> FindUnwritableLog(const std::filesystem::path& database);

// Renames the database and its files to "NAME.damaged-TIME-RANDOM", and deletes all databases that
// were set aside, except the last three. Returns the new path of the database. Throws kIO if that
// fails.
std::filesystem::path SetAside(const std::filesystem::path& database);

// Replaces the database and its log by copies if they have other hard links, which belong to a copy
// of the home: two homes must not share these files. Returns true if a file was replaced. Throws
// kIO if that fails.
bool Unshare(const std::filesystem::path& database);

// Deletes the database and its files. Throws kIO if that fails.
void RemoveDatabase(const std::filesystem::path& database);

}  // namespace msb::index

#endif  // MSB_SRC_INDEX_OWN_DATABASE_H_
