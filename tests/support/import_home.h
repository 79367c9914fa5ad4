// A home that is in use, and archives that come into it: what must be refused leaves it as it is.

#ifndef MSB_TESTS_SUPPORT_IMPORT_HOME_H_
#define MSB_TESTS_SUPPORT_IMPORT_HOME_H_

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <vector>

#include "tests/support/archive_sample.h"
#include "tests/support/support.h"

namespace msb::test {

// What is too large is refused much faster, also on a slow and busy machine; unpacking it would
// take minutes.
inline constexpr std::chrono::seconds kRefusedWithin{10};

// Throws what it does not find: the upper of a raw snapshot in its artifact directory.
std::filesystem::path UpperIn(const std::filesystem::path& artifact);

// Has a sandbox, the snapshot "s" of it, its disk image and files of another image in the cache,
// and a directory beside the home. At the end of each test a sound archive must still come in.
class ImportHome : public ::testing::Test {
 protected:
  ImportHome();
  void TearDown() override;

  // Writes the archive where no listing sees it.
  std::string Stored(const std::string& archive);
  SnapshotHandle Import(const std::string& archive, const std::string& dest = "");

  // Import throws one of these kinds and leaves home and dest as they were.
  void ExpectRefused(const std::string& archive, std::initializer_list<ErrorKind> kinds,
                     const std::string& dest = "");
  void ExpectRefused(const std::string& archive, ErrorKind kind = ErrorKind::kSnapshotIntegrity,
                     const std::string& dest = "");
  // The same for an archive that is at path.
  void ExpectPathRefused(const std::string& path, std::initializer_list<ErrorKind> kinds,
                         const std::string& dest = "", const Context& ctx = Context::Background());

  // The snapshot is as the sample was: metadata, content, holes, integrity.
  void ExpectSound(const SnapshotHandle& handle, const SampleSnapshot& sample);

  const Context ctx_ = Context::Background();
  TempDir archives_;
  TempDir dir_;
  const std::filesystem::path home_ = dir_ / "home";
  const std::filesystem::path dest_ = dir_ / "dest";
  std::vector<std::string> log_;
  Client client_ = LocalClient(home_, &log_);
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_IMPORT_HOME_H_
