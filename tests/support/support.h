// What the tests share: temporary directories, files with holes, fixtures, and assertions on
// errors.

#ifndef MSB_TESTS_SUPPORT_SUPPORT_H_
#define MSB_TESTS_SUPPORT_SUPPORT_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "msb/msb.h"

namespace msb::test {

// Runs statement and expects it to throw an msb::Error of this kind. The error's message is checked
// to name something: it must not be empty.
#define EXPECT_MSB_ERROR(statement, expected_kind)                                          \
  try {                                                                                     \
    statement;                                                                              \
    ADD_FAILURE() << "no error from " #statement;                                           \
  } catch (const msb::Error& e) {                                                           \
    EXPECT_EQ(msb::ErrorKindName(e.kind()), msb::ErrorKindName(expected_kind)) << e.what(); \
    EXPECT_STRNE(e.what(), "");                                                             \
  }

// A directory of its own, removed at the end. By default on the file system of the build, not in
// /tmp, which may be one without holes or reflinks.
class TempDir {
 public:
  TempDir() : TempDir(MSB_TEST_TMP_DIR) {}
  explicit TempDir(const std::filesystem::path& parent);
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::string ReadFile(const std::filesystem::path& path);
void WriteFile(const std::filesystem::path& path, std::string_view content);
// Overwrites bytes in the middle of a file.
void PatchFile(const std::filesystem::path& path, std::uint64_t offset, std::string_view bytes);

// Bytes that look random and are the same for the same seed.
std::string Noise(std::size_t size, std::uint32_t seed);

// Makes a file of size bytes that is a hole but for these (offset, content).
void MakeSparseFile(const std::filesystem::path& path, std::uint64_t size,
                    const std::vector<std::pair<std::uint64_t, std::string>>& data);
// (offset, length) of each data extent, as the file system tells.
std::vector<std::pair<std::uint64_t, std::uint64_t>> ExtentsOf(const std::filesystem::path& path);

// Every path below dir with what it is: "dir", "link TARGET", or the SHA-256 of its content. Equal
// listings: nothing was left behind, and nothing was changed.
std::map<std::string, std::string> ListTree(const std::filesystem::path& dir);

struct CommandResult {
  int status = 0;      // Exit status; 128 + the signal for a killed one.
  std::string output;  // Standard output and standard error.
};
CommandResult RunCommand(const std::string& shell_command);

// The releases that fixtures are of: "0.6.6", "0.6.18", "0.7.2".
std::vector<std::string> FixtureReleases();
// Unpacks the home that a release wrote into dir, and returns its path.
std::filesystem::path UnpackFixtureHome(const std::string& release,
                                        const std::filesystem::path& dir);

// The executable of a released runtime, from the folder that MSB_PEERS names; empty if it is not
// there.
std::filesystem::path PeerPath(const std::string& release);

// A client of the local backend in a home below dir, whose warnings go to log if it is given.
Client LocalClient(const std::filesystem::path& home, std::vector<std::string>* log = nullptr);

// Makes a disk image at path, and a stopped sandbox of that name from it.
void MakeStoppedSandbox(Client& client, const std::string& name,
                        const std::filesystem::path& image);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_SUPPORT_H_
