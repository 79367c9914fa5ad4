// SPDX-License-Identifier: Apache-2.0
//
// Archives whose members are each valid, but do not belong together.

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/support/import_home.h"
#include "tests/support/qcow2_sample.h"

namespace msb::test {
namespace {

using HostileMemberTest = ImportHome;

std::vector<TarEntry> WithInventory(const SampleArchive& archive) {
  std::vector<TarEntry> entries = archive.entries;
  if (archive.layout != SampleLayout::kLegacy) {
    entries.push_back(InventoryEntry(archive.Inventory()));
  }
  return entries;
}

TEST_F(HostileMemberTest, AnyEntryTwice) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive sound = MakeSampleWithImage(layout);
    const std::vector<TarEntry> entries = WithInventory(sound);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      SCOPED_TRACE(entries[i].name);
      // Next to itself, at the end, and, except for archive.json, with an inventory that agrees.
      std::vector<TarEntry> twice = entries;
      twice.insert(twice.begin() + static_cast<std::ptrdiff_t>(i), entries[i]);
      ExpectRefused(TarArchive(twice));
      twice = entries;
      twice.push_back(entries[i]);
      ExpectRefused(TarArchive(twice));
      if (i >= sound.entries.size()) continue;
      SampleArchive agreed = sound;
      agreed.entries.push_back(entries[i]);
      ExpectRefused(agreed.Tar());
      // The second one differs: whichever is used, the other one was not checked.
      agreed.entries.back().type = '0';
      agreed.entries.back().ranges.clear();
      agreed.entries.back().content = "other";
      ExpectRefused(agreed.Tar());
    }
  }
}

TEST_F(HostileMemberTest, AnyEntryMissing) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const SampleArchive& sound :
         {MakeSampleArchive(layout), MakeSampleWithImage(layout), MakeSampleChain(layout)}) {
      const std::vector<TarEntry> entries = WithInventory(sound);
      for (std::size_t i = 0; i < entries.size(); ++i) {
        SCOPED_TRACE(entries[i].name);
        std::vector<TarEntry> less = entries;
        less.erase(less.begin() + static_cast<std::ptrdiff_t>(i));
        ExpectRefused(TarArchive(less));
        // With an inventory that agrees; only labels may be absent.
        if (i >= sound.entries.size() || entries[i].name.ends_with("/metadata.json")) continue;
        SampleArchive agreed = sound;
        agreed.entries.erase(agreed.entries.begin() + static_cast<std::ptrdiff_t>(i));
        ExpectRefused(agreed.Tar());
      }
    }
  }
}

TEST_F(HostileMemberTest, NothingButAnImageOrAnInventory) {
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive archive = MakeSampleWithImage(layout);
    SCOPED_TRACE(archive.entries[0].name);
    std::erase_if(archive.entries, [](const TarEntry& entry) {
      return !entry.name.starts_with("images/") && !entry.name.starts_with("cache/");
    });
    ExpectRefused(archive.Tar());
    ExpectRefused(TarArchive(archive.entries));
    archive.entries.clear();
    ExpectRefused(archive.Tar());
  }
}

TEST_F(HostileMemberTest, UnexpectedMembers) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive sound = MakeSampleArchive(layout);
    const SampleSnapshot& snapshot = sound.snapshots[0];
    const std::string hex = snapshot.digest.substr(7);
    for (const std::string& name :
         {"files/" + hex + "/extra", "files/" + hex + "/upper.qcow2",
          "files/" + std::string(64, 'a') + "/upper.ext4", "snapshots/" + snapshot.id + "/extra",
          "snapshots/" + hex + "/metadata.json", "snapshots/" + hex + "/manifest.json",
          std::string("layers/layer_00000000000000000000000000000000.raw"),
          "layers/" + snapshot.layer_id + ".qcow2", "sha256-" + hex.substr(0, 16) + "/extra",
          "sha256-" + hex.substr(0, 16) + "/upper.qcow2",
          "sha256-" + hex.substr(0, 16) + "/snapshot.json", std::string("archive.json.bak")}) {
      SCOPED_TRACE(name);
      SampleArchive more = sound;
      more.entries.push_back({.name = name.substr(0, 100), .content = "{}"});
      ExpectRefused(more.Tar());
    }
  }
}

TEST_F(HostileMemberTest, LayoutsMixed) {
  for (const SampleLayout first : kSampleLayouts) {
    for (const SampleLayout second : kSampleLayouts) {
      if (first == second) continue;
      SCOPED_TRACE(std::to_string(static_cast<int>(first)) + " and " +
                   std::to_string(static_cast<int>(second)));
      SampleArchive mixed = MakeSampleArchive(first, {.seed = 1});
      const SampleArchive other = MakeSampleArchive(second, {.seed = 2});
      mixed.entries.insert(mixed.entries.end(), other.entries.begin(), other.entries.end());
      mixed.snapshots.push_back(other.snapshots[0]);
      ExpectRefused(TarArchive(mixed.entries));
      ExpectRefused(mixed.TarWith(MakeSampleArchive(first).Inventory()));
      ExpectRefused(mixed.TarWith(other.Inventory()));
    }
  }
}

TEST_F(HostileMemberTest, ALegacyArchiveWithAnInventory) {
  const SampleArchive archive = MakeSampleArchive(SampleLayout::kLegacy);
  for (const SampleLayout layout : {SampleLayout::kInventory, SampleLayout::kLayered}) {
    SampleArchive lying = archive;
    lying.layout = layout;
    ExpectRefused(lying.Tar());
    ExpectRefused(archive.TarWith(MakeSampleArchive(layout).Inventory()));
  }
}

// Image files of one layout where another layout has them.
TEST_F(HostileMemberTest, ImageFilesInThePlaceOfAnotherLayout) {
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive archive = MakeSampleWithImage(layout);
    SCOPED_TRACE(archive.entries[0].name);
    for (TarEntry& entry : archive.entries) {
      if (entry.name.starts_with("images/")) {
        entry.name.replace(0, 6, "cache");
      } else if (entry.name.starts_with("cache/")) {
        entry.name.replace(0, 5, "images");
      }
    }
    ExpectRefused(archive.Tar());
  }
}

TEST_F(HostileMemberTest, UppersThatTheManifestDoesNotName) {
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive archive = MakeSampleArchive(layout);
    std::string& name = archive.entries.back().name;
    const std::string directory = name.substr(0, name.rfind('/') + 1);
    for (const std::string file : {"upper.qcow2", "upper.ext3", "other", "layer_other.raw"}) {
      name = directory + file;
      SCOPED_TRACE(name);
      ExpectRefused(archive.Tar());
    }
  }
}

TEST_F(HostileMemberTest, SnapshotsUnderTheNameOfAnother) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive other = MakeSampleArchive(layout, {.seed = 2});
    SampleArchive archive = MakeSampleArchive(layout);
    SCOPED_TRACE(archive.entries[0].name);
    for (std::size_t i = 0; i < archive.entries.size(); ++i) {
      archive.entries[i].name = other.entries[i].name;
    }
    ExpectRefused(archive.Tar());
    archive.snapshots[0].id = other.snapshots[0].id;
    ExpectRefused(archive.Tar());
  }
}

// A legacy directory is named after 16 digits of a digest, which two snapshots may share; one would
// hide the other.
TEST_F(HostileMemberTest, TwoSnapshotsInOneDirectory) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive other = MakeSampleArchive(layout, {.seed = 2});
    const SampleArchive sound = MakeSampleArchive(layout);
    SCOPED_TRACE(sound.entries[0].name);
    SampleArchive archive = sound;
    for (std::size_t i = 0; i < other.entries.size(); ++i) {
      archive.entries.push_back(other.entries[i]);
      archive.entries.back().name = sound.entries[i].name;
    }
    ExpectRefused(archive.Tar());
    archive.snapshots.push_back(other.snapshots[0]);
    ExpectRefused(archive.Tar());
  }
}

TEST_F(HostileMemberTest, TwoHeads) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    ExpectRefused(MakeSampleArchive({MakeSampleSnapshot(layout, {.seed = 1}),
                                     MakeSampleSnapshot(layout, {.seed = 2})})
                      .Tar());
    // Two children of one parent.
    const SampleSnapshot parent = MakeSampleSnapshot(layout, {.seed = 1});
    ExpectRefused(
        MakeSampleArchive({parent, MakeSampleSnapshot(layout, {.seed = 2, .parent = parent.id}),
                           MakeSampleSnapshot(layout, {.seed = 3, .parent = parent.id})})
            .Tar());
  }
}

// A guest would read the file that its disk names as the backing file.
TEST_F(HostileMemberTest, Qcow2DisksThatAreBackedByAnotherFile) {
  const std::string image = MakeSampleImage().image.manifest_digest.substr(7);
  const std::string zeros(64, '0');
  const std::pair<std::string, ErrorKind> kCases[] = {
      {"/etc/shadow", ErrorKind::kSnapshotIntegrity},
      {"../../s/upper.ext4", ErrorKind::kSnapshotIntegrity},
      {"json:{}", ErrorKind::kSnapshotIntegrity},
      {"upper.qcow2", ErrorKind::kUnsupportedOperation},
      {"sha256_" + zeros + ".qcow2", ErrorKind::kUnsupportedOperation},
      {"sha256_" + image + ".vmdk", ErrorKind::kUnsupportedOperation}};
  for (const auto& [name, kind] : kCases) {
    for (const bool early : {false, true}) {
      SCOPED_TRACE(name);
      std::string disk = Qcow2Sample("disk");
      disk.replace(8, 12,
                   std::string("\0\0\0\0\0\0\2\0\0\0\0", 11) + static_cast<char>(name.size()));
      disk.replace(0x200, name.size(), name);
      SampleArchive archive = MakeSampleArchive(
          SampleLayout::kInventory, {.sparse = false, .algorithm = "", .edit = [&](Json& manifest) {
                                       Json& state = manifest["state"];
                                       state["format"] = "qcow2";
                                       state["upper"]["file"] = "upper.qcow2";
                                       state["upper"]["size_bytes"] = disk.size();
                                     }});
      TarEntry& upper = archive.Entry("upper.ext4");
      upper.name.replace(upper.name.size() - 4, 4, "qcow2");
      upper.content = disk;
      if (early) std::reverse(archive.entries.begin(), archive.entries.end());
      ExpectRefused(archive.Tar(), kind);
    }
  }
}

// Digests cannot form a loop, but ids can.
TEST_F(HostileMemberTest, NoHead) {
  constexpr SampleLayout kLayered = SampleLayout::kLayered;
  const auto id = [](std::uint32_t seed) {
    return MakeSampleSnapshot(kLayered, {.seed = seed}).id;
  };
  ExpectRefused(MakeSampleArchive(kLayered, {.seed = 1, .parent = id(1)}).Tar());
  ExpectRefused(MakeSampleArchive({MakeSampleSnapshot(kLayered, {.seed = 1, .parent = id(2)}),
                                   MakeSampleSnapshot(kLayered, {.seed = 2, .parent = id(1)})})
                    .Tar());
  // A loop beside a head.
  ExpectRefused(MakeSampleArchive({MakeSampleSnapshot(kLayered, {.seed = 1, .parent = id(2)}),
                                   MakeSampleSnapshot(kLayered, {.seed = 2, .parent = id(1)}),
                                   MakeSampleSnapshot(kLayered, {.seed = 3})})
                    .Tar());
}

}  // namespace
}  // namespace msb::test
