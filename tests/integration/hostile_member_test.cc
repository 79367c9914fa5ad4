// Archives whose members are each sound, but do not go together.

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/import_home.h"

namespace msb::test {
namespace {

constexpr SampleLayout kLayouts[] = {SampleLayout::kLegacy, SampleLayout::kInventory,
                                     SampleLayout::kLayered};

using HostileMemberTest = ImportHome;

std::vector<TarEntry> WithInventory(const SampleArchive& archive) {
  std::vector<TarEntry> entries = archive.entries;
  if (archive.layout != SampleLayout::kLegacy) {
    entries.push_back(InventoryEntry(archive.Inventory()));
  }
  return entries;
}

TEST_F(HostileMemberTest, AnyEntryTwice) {
  for (const SampleLayout layout : kLayouts) {
    const SampleArchive sound = MakeSampleWithImage(layout);
    const std::vector<TarEntry> entries = WithInventory(sound);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      SCOPED_TRACE(entries[i].name);
      // Right behind itself, at the end, and, but for archive.json, with an inventory that agrees.
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
      // The second one differs: whichever counts, one of the two was not checked.
      agreed.entries.back().type = '0';
      agreed.entries.back().ranges.clear();
      agreed.entries.back().content = "other";
      ExpectRefused(agreed.Tar());
    }
  }
}

TEST_F(HostileMemberTest, AnyEntryMissing) {
  for (const SampleLayout layout : kLayouts) {
    for (const SampleArchive& sound :
         {MakeSampleArchive(layout), MakeSampleWithImage(layout), MakeSampleChain(layout)}) {
      const std::vector<TarEntry> entries = WithInventory(sound);
      for (std::size_t i = 0; i < entries.size(); ++i) {
        SCOPED_TRACE(entries[i].name);
        std::vector<TarEntry> less = entries;
        less.erase(less.begin() + static_cast<std::ptrdiff_t>(i));
        ExpectRefused(TarArchive(less));
        // An inventory that agrees; labels alone may be absent.
        if (i >= sound.entries.size() || entries[i].name.ends_with("/metadata.json")) continue;
        SampleArchive agreed = sound;
        agreed.entries.erase(agreed.entries.begin() + static_cast<std::ptrdiff_t>(i));
        ExpectRefused(agreed.Tar());
      }
    }
  }
}

TEST_F(HostileMemberTest, NothingButAnImageOrAnInventory) {
  for (const SampleLayout layout : kLayouts) {
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

TEST_F(HostileMemberTest, APayloadBeforeItsManifest) {
  for (const SampleLayout layout : kLayouts) {
    SampleArchive archive = MakeSampleArchive(layout);
    SCOPED_TRACE(archive.entries[0].name);
    std::rotate(archive.entries.begin(), archive.entries.end() - 1, archive.entries.end());
    ExpectRefused(archive.Tar());
  }
}

TEST_F(HostileMemberTest, AnInventoryThatIsNotLast) {
  for (const SampleLayout layout : {SampleLayout::kInventory, SampleLayout::kLayered}) {
    const SampleArchive sound = MakeSampleArchive(layout);
    for (std::size_t i = 0; i < sound.entries.size(); ++i) {
      SCOPED_TRACE(i);
      std::vector<TarEntry> entries = sound.entries;
      entries.insert(entries.begin() + static_cast<std::ptrdiff_t>(i),
                     InventoryEntry(sound.Inventory()));
      ExpectRefused(TarArchive(entries));
    }
  }
}

TEST_F(HostileMemberTest, MembersThatNobodyAskedFor) {
  for (const SampleLayout layout : kLayouts) {
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
  for (const SampleLayout first : kLayouts) {
    for (const SampleLayout second : kLayouts) {
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

// Images of one layout in the place that another has for them.
TEST_F(HostileMemberTest, ImageFilesInThePlaceOfAnotherLayout) {
  for (const SampleLayout layout : kLayouts) {
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
  for (const SampleLayout layout : kLayouts) {
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
  for (const SampleLayout layout : kLayouts) {
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

// The legacy directory has 16 digits of a digest, which two may share; one would hide the other.
TEST_F(HostileMemberTest, TwoSnapshotsInOneDirectory) {
  for (const SampleLayout layout : kLayouts) {
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
  for (const SampleLayout layout : kLayouts) {
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

// Digests cannot be in a loop, ids can.
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
