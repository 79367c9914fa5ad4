// SPDX-License-Identifier: Apache-2.0
//
// Tests that other calls can use a snapshot as soon as an import makes it visible, even if the
// import then fails.

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <string>

#include "src/archive/image_files.h"
#include "src/archive/member.h"
#include "src/artifact/store.h"
#include "src/base/digest.h"
#include "tests/fault/fault_home.h"
#include "tests/support/call_interceptor.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

class ImportFaultTest : public ::testing::Test {
 protected:
  fs::path PathOf(const std::string& name) const {
    return home_.Snapshots() / archive::DirectoryOf(archive::Layout::kInventory,
                                                    base::Digest::Require(home_.DigestOf(name)));
  }

  // Expects that nothing has disappeared since the last call of this function, and that each
  // snapshot that is visible can be used.
  void Look() {
    for (const char* name : {"received", "received-head"}) {
      const bool is_visible = fs::exists(PathOf(name));
      EXPECT_TRUE(is_visible || !seen_.contains(name)) << name << " has disappeared";
      if (!is_visible || !seen_.insert(name).second) continue;
      const artifact::Artifact artifact = artifact::OpenArtifactAt(PathOf(name));
      EXPECT_NO_THROW(archive::FilesOfImage(home_ / "home/cache", artifact.manifest.image)) << name;
    }
    EXPECT_TRUE(seen_.contains("received") || !seen_.contains("received-head"));
  }

  // Imports the archive. Once a name appears in the snapshots directory or in the cache, the n-th
  // call that can fail does so.
  InterceptedRun Import(int n) {
    home_.Reset();
    seen_.clear();
    bool publishes = false;
    int count = 0;
    const auto decide = [&](const InterceptedCall& call) {
      Look();
      if (call.Describe().starts_with("rename")) publishes = true;
      return publishes && CanFailWith(call, EIO) && count++ == n ? EIO : 0;
    };
    const auto run =
        RunIntercepted(FileCalls(), decide, [&](const std::function<void()>& begin) -> std::string {
          Client client = home_.NewClient();
          begin();
          try {
            Snapshot::Import(Context::Background(), home_ / "archive.tar.zst", "", client);
          } catch (const Error& e) {
            return e.what();
          }
          return "done";
        });
    Look();
    return run;
  }

  FaultHome home_{{}};
  std::set<std::string> seen_;
};

TEST_F(ImportFaultTest, NeverWithdrawsASnapshotThatWasVisible) {
  std::set<std::string> left;  // What failed imports have left.
  for (int n = 0;; ++n) {
    const InterceptedRun run = Import(n);
    SCOPED_TRACE(run.first + ": " + run.report);
    if (run.interferences == 0) {
      EXPECT_EQ(run.report, "done");
      break;
    }
    if (run.report != "done") left.insert(seen_.begin(), seen_.end());
    if (run.report != "done" && seen_.contains("received-head")) {
      EXPECT_NE(run.report.find(PathOf("received-head").native() +
                                " was published nevertheless, but a power failure may undo this: "
                                "remove it and try again"),
                std::string::npos);
    }
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_EQ(left, (std::set<std::string>{"received", "received-head"}));
}

}  // namespace
}  // namespace msb::test
