// SPDX-License-Identifier: Apache-2.0
//
// Tests that Export refuses snapshots whose archive Import would refuse, before it writes anything,
// and exports those that are just within the limits.

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "tests/support/archive_sample.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kTebibyte = std::uint64_t{1} << 40;

class ExportLimitTest : public ::testing::Test {
 protected:
  // Adds a snapshot of the generations before 0.7 to the home. Returns its path.
  fs::path Add(const SampleSnapshot& sample) {
    const bool legacy = sample.layout == SampleLayout::kLegacy;
    const Json manifest = Json::parse(sample.manifest);
    const Json& upper = legacy ? manifest["upper"] : manifest["state"]["upper"];
    const fs::path path = home_ / "snapshots" / sample.digest.substr(7);
    WriteFile(path / (legacy ? "manifest.json" : "snapshot.json"), sample.manifest);
    disk_ = path / upper["file"].get<std::string>();
    WriteFile(disk_, sample.upper);
    return path;
  }

  void ExpectRefused(const fs::path& snapshot, const std::string& source,
                     const std::string& problem, const std::string& next_step) {
    EXPECT_MSB_ERROR(
        Snapshot::Export(ctx_, snapshot, dir_ / "out/archive", {.with_parents = true}, client_),
        ErrorKind::kUnsupportedOperation, source, problem, next_step);
    EXPECT_FALSE(fs::exists(dir_ / "out"));
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path home_ = dir_ / "home";
  Client client_ = LocalClient(home_);
  fs::path disk_;  // The disk of the snapshot that was added last.
};

TEST_F(ExportLimitTest, ADiskThatTakesTooLongToHash) {
  for (const std::uint64_t size : {kTebibyte, kTebibyte + 1}) {
    const fs::path path = Add(MakeSampleSnapshot(
        SampleLayout::kLegacy,
        {.edit = [&](Json& manifest) { manifest["upper"]["size_bytes"] = size; }}));
    std::error_code error;
    fs::resize_file(disk_, size, error);
    if (error) GTEST_SKIP() << "this file system has no sparse files of a TiB";
    if (size > kTebibyte) {
      ExpectRefused(path, path, "the archive exceeds the limit of 1099511627776 bytes to hash",
                    "squash the snapshot without recording the integrity");
    } else {
      Snapshot::Export(ctx_, path, dir_ / "archive", {.sparse = true}, client_);
    }
  }
}

TEST_F(ExportLimitTest, ANameThatNoEntryCanHave) {
  for (const std::string name : {"back\\slash.ext4", "line\nbreak.ext4"}) {
    for (const SampleLayout layout : {SampleLayout::kLegacy, SampleLayout::kInventory}) {
      const auto edit = [&](Json& manifest) {
        (layout == SampleLayout::kLegacy ? manifest : manifest["state"])["upper"]["file"] = name;
      };
      const fs::path path = Add(MakeSampleSnapshot(layout, {.edit = edit}));
      ExpectRefused(path, path, "has a name that an archive cannot hold",
                    "squash the snapshot first");
    }
  }
}

}  // namespace
}  // namespace msb::test
