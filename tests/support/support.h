// SPDX-License-Identifier: Apache-2.0
//
// Helpers that all tests share: temporary directories, sparse files, fixtures, and assertions on
// errors.

#ifndef MSB_TESTS_SUPPORT_SUPPORT_H_
#define MSB_TESTS_SUPPORT_SUPPORT_H_

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "msb/msb.h"

namespace msb::test {

// Returns success if message contains each of these texts, and otherwise a failure that lists the
// absent ones.
testing::AssertionResult Names(std::string_view message, std::initializer_list<std::string> named);

// Evaluates expression, drops its result, and expects it to throw an msb::Error of this kind. Its
// message must contain each of the texts that follow, of which there must be at least one: the name
// of the object, what was expected or found, and the next step.
#define EXPECT_MSB_ERROR(expression, expected_kind, named, ...)                             \
  try {                                                                                     \
    static_cast<void>(expression);                                                          \
    ADD_FAILURE() << "no error from " #expression;                                          \
  } catch (const msb::Error& e) {                                                           \
    EXPECT_EQ(msb::ErrorKindName(e.kind()), msb::ErrorKindName(expected_kind)) << e.what(); \
    EXPECT_TRUE(msb::test::Names(e.what(), {named __VA_OPT__(, ) __VA_ARGS__}));            \
  }

// A new directory that is removed at the end. Default: below the build directory rather than in
// /tmp, whose file system may support neither holes nor reflinks.
class TempDir {
 public:
  TempDir();
  explicit TempDir(const std::filesystem::path& parent);
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// Returns a context that ends in two minutes, which is far longer than any call of a test takes.
Context Soon();

std::string ReadFile(const std::filesystem::path& path);
void WriteFile(const std::filesystem::path& path, std::string_view content);
// Overwrites bytes in the middle of a file.
void PatchFile(const std::filesystem::path& path, std::uint64_t offset, std::string_view bytes);

// Overwrites bytes in the middle of a file and sets its modification time back, as 'rsync --inplace
// -t' does. The file's change time (ctime) becomes later than it was.
void PatchFileKeepingTime(const std::filesystem::path& path, std::uint64_t offset,
                          std::string_view bytes);

inline std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// Returns bytes that look random and depend only on size and seed.
std::string Noise(std::size_t size, std::uint32_t seed);

// Extents begin and end at multiples of this on all file systems that the tests have run on.
inline constexpr std::uint64_t kExtentUnit = 64 << 10;

// Makes a file of size bytes that consists of a hole and these (offset, content) pairs.
void MakeSparseFile(const std::filesystem::path& path, std::uint64_t size,
                    const std::vector<std::pair<std::uint64_t, std::string>>& data);
// Returns (offset, length) of each data extent that the file system reports.
std::vector<std::pair<std::uint64_t, std::uint64_t>> ExtentsOf(const std::filesystem::path& path);

// Returns whether fd is an open descriptor.
bool IsOpen(int fd);

// Maps each path below dir to a description: "dir", "link TARGET", the SHA-256 of a file's content,
// or "special". If two listings are equal, nothing was left behind and nothing was changed.
std::map<std::string, std::string> ListTree(const std::filesystem::path& dir);

struct CommandResult {
  int status = 0;      // Exit status, or 128 + the signal that killed the command.
  std::string output;  // Standard output and standard error.
};
CommandResult RunCommand(const std::string& shell_command);

// Returns the releases whose fixtures most tests iterate over: "0.6.6", "0.6.18", "0.7.2".
std::vector<std::string> FixtureReleases();
// Unpacks the home that a release wrote into dir, and returns the path of that home.
std::filesystem::path UnpackFixtureHome(const std::string& release,
                                        const std::filesystem::path& dir);

// Returns the program of a released runtime, msb-RELEASE in the directory that MSB_PEERS names, or
// an empty path if it is absent.
std::filesystem::path PeerPath(const std::string& release);

// A log in which nothing may be written.
inline void Unexpected(std::string_view message) { ADD_FAILURE() << message; }

// Returns a client of the local backend for this home. Its warnings are appended to log, if set.
Client LocalClient(const std::filesystem::path& home, std::vector<std::string>* log = nullptr);

// Makes a stopped sandbox from a disk image; makes the image first if it does not exist.
void MakeStoppedSandbox(Client& client, const std::string& name,
                        const std::filesystem::path& image);

// Returns the names of the snapshots in the order of List; "(none)" for one that has no name.
std::vector<std::string> SnapshotNames(Client& client);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_SUPPORT_H_
