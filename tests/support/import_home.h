// SPDX-License-Identifier: Apache-2.0
//
// A home in use that archives are imported into, to test that a refused import leaves it unchanged.

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

// Returns the path of the upper in the artifact directory of a raw snapshot. Throws if there is
// none.
std::filesystem::path UpperIn(const std::filesystem::path& artifact);

// A test with a home and, beside it, the directory dest_. The home has a sandbox, its snapshot "s",
// and in its cache the sandbox's disk image and the files of another image. After each test a valid
// archive must still be imported.
class ImportHome : public ::testing::Test {
 protected:
  ImportHome();
  void TearDown() override;

  // Writes the archive outside of the directories that ListTree compares, and returns its path.
  std::string Stored(const std::string& archive);
  SnapshotHandle Import(const std::string& archive, const std::string& dest = "");

  // Expects Import to throw one of these kinds and to leave the home and dest unchanged.
  void ExpectRefused(const std::string& archive, std::initializer_list<ErrorKind> kinds,
                     const std::string& dest = "");
  void ExpectRefused(const std::string& archive, ErrorKind kind = ErrorKind::kSnapshotIntegrity,
                     const std::string& dest = "");
  // Expects the same for an archive at path.
  void ExpectPathRefused(const std::string& path, std::initializer_list<ErrorKind> kinds,
                         const std::string& dest = "", const Context& ctx = Context::Background());

  // Expects the snapshot to match the sample: metadata, content, holes and integrity.
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
