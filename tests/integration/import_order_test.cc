// SPDX-License-Identifier: Apache-2.0
//
// The members of an archive in any order, as released readers accept them, and trailing skippable
// frames.

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/import_home.h"
#include "tests/support/zstd_frame.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

class ImportOrderTest : public ImportHome {
 protected:
  static std::vector<TarEntry> AllEntries(const SampleArchive& archive) {
    std::vector<TarEntry> entries = archive.entries;
    if (archive.layout != SampleLayout::kLegacy) {
      entries.push_back(InventoryEntry(archive.Inventory()));
    }
    return entries;
  }

  void StartAgain() {
    fs::remove_all(home_);
    client_ = LocalClient(home_, &log_);
  }
};

TEST_F(ImportOrderTest, ImportAcceptsTheMembersOfASnapshotInEveryOrder) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const bool sparse : {false, true}) {
      const SampleArchive sample = MakeSampleArchive(layout, {.sparse = sparse});
      const std::vector<TarEntry> entries = AllEntries(sample);
      std::vector<std::size_t> order(entries.size());
      std::iota(order.begin(), order.end(), 0);
      do {
        std::vector<TarEntry> ordered;
        std::string trace;
        for (const std::size_t i : order) {
          ordered.push_back(entries[i]);
          trace += entries[i].name + " ";
        }
        SCOPED_TRACE(trace);
        StartAgain();
        ExpectSound(Import(TarArchive(ordered)), sample.snapshots[0]);
      } while (std::next_permutation(order.begin(), order.end()));
    }
  }
}

TEST_F(ImportOrderTest, ImportAcceptsAChainWithImagesInAnyOrder) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleSnapshot parent = MakeSampleSnapshot(layout, {.seed = 1});
    const SampleSnapshot child = MakeSampleSnapshot(layout, {.seed = 2, .parent = parent.id});
    const SampleArchive sample = MakeSampleArchive({parent, child}, {MakeSampleImage()});
    std::vector<TarEntry> entries = AllEntries(sample);
    for (int i = 0; i < 2; ++i) {
      for (std::size_t n = 0; n < entries.size(); ++n) {
        std::rotate(entries.begin(), entries.begin() + 1, entries.end());
        SCOPED_TRACE(entries.front().name);
        StartAgain();
        ExpectSound(Import(TarArchive(entries)), child);
        ExpectSound(Snapshot::Get(ctx_, parent.digest, client_), parent);
      }
      std::reverse(entries.begin(), entries.end());
    }
  }
}

TEST_F(ImportOrderTest, ImportChecksADiskThatPrecedesItsManifest) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const std::string algorithm : {"sha256", "msb-sparse-sha256-v1"}) {
      SampleArchive archive = MakeSampleArchive(layout, {.algorithm = algorithm});
      SCOPED_TRACE(archive.entries[0].name + algorithm);
      std::rotate(archive.entries.begin(), archive.entries.end() - 1, archive.entries.end());
      SampleArchive damaged = archive;
      char& byte = damaged.entries.front().content[0];
      byte = static_cast<char>(~byte);
      ExpectRefused(damaged.Tar());
      SampleArchive shorter = archive;
      shorter.entries.front().ranges.clear();
      shorter.entries.front().type = '0';
      shorter.entries.front().content.resize(1000);
      ExpectRefused(shorter.Tar());
    }
  }
}

TEST_F(ImportOrderTest, ImportRefusesMembersThatNoManifestClaims) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive sound = MakeSampleArchive(layout);
    const SampleArchive other = MakeSampleArchive(layout, {.seed = 2});
    for (std::size_t i = 1; i < other.entries.size(); ++i) {
      for (const bool first : {false, true}) {
        SCOPED_TRACE(other.entries[i].name);
        SampleArchive more = sound;
        more.entries.insert(first ? more.entries.begin() : more.entries.end(), other.entries[i]);
        ExpectRefused(more.Tar());
        ExpectRefused(TarArchive(more.entries));
      }
    }
  }
}

TEST_F(ImportOrderTest, ImportAcceptsASharedLayerAnywhere) {
  const SampleSnapshot parent = MakeSampleSnapshot(SampleLayout::kLayered, {.seed = 1});
  const auto share = [&](Json& manifest) {
    Json& state = manifest["state"];
    state["head"] = parent.layer_id;
    state["layers"] = Json::parse(parent.manifest)["state"]["layers"];
  };
  const SampleSnapshot child =
      MakeSampleSnapshot(SampleLayout::kLayered, {.seed = 2, .parent = parent.id, .edit = share});
  SampleArchive archive = MakeSampleArchive({parent, child});
  std::erase_if(archive.entries, [&](const TarEntry& entry) {
    return entry.name.starts_with("layers/") &&
           entry.name.find(parent.layer_id) == std::string::npos;
  });
  const auto layer =
      std::find_if(archive.entries.begin(), archive.entries.end(),
                   [](const TarEntry& entry) { return entry.name.starts_with("layers/"); });
  const TarEntry payload = *layer;
  archive.entries.erase(layer);
  for (std::size_t i = 0; i <= archive.entries.size(); ++i) {
    SCOPED_TRACE(i);
    StartAgain();
    SampleArchive ordered = archive;
    ordered.entries.insert(ordered.entries.begin() + static_cast<std::ptrdiff_t>(i), payload);
    const auto head = Import(ordered.Tar());
    EXPECT_EQ(head.Digest(), child.digest);
    EXPECT_TRUE(ReadFile(UpperIn(head.Path())) == parent.upper);
  }
}

TEST_F(ImportOrderTest, ImportSkipsTrailingSkippableFrames) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive sample = MakeSampleArchive(layout);
    const std::string frame = Compress(sample.Tar());
    for (const std::string& more :
         {SkippableFrame(""), SkippableFrame("note"), SkippableFrame("a") + SkippableFrame("b"),
          SkippableFrame(std::string(5 << 20, 'x'))}) {
      SCOPED_TRACE(more.size());
      StartAgain();
      ExpectSound(Import(frame + more), sample.snapshots[0]);
    }
    const std::string note = SkippableFrame("note");
    for (std::size_t size = 1; size < note.size(); ++size) {
      SCOPED_TRACE(size);
      StartAgain();
      EXPECT_MSB_ERROR(Import(frame + note.substr(0, size)), ErrorKind::kSnapshotIntegrity,
                       "the archive is not a valid zstd frame: ", "copy or export it again");
    }
    for (const std::string& bad : {note + "x", note + frame, note + std::string(8, '\0'),
                                   SkippableFrame(std::string((16 << 20) + 1, 'x'))}) {
      StartAgain();
      EXPECT_MSB_ERROR(Import(frame + bad), ErrorKind::kSnapshotIntegrity,
                       "the archive is not a valid zstd frame: ", "copy or export it again");
    }
  }
}

}  // namespace
}  // namespace msb::test
