// SPDX-License-Identifier: Apache-2.0
//
// Archives whose image is not the one that a snapshot pins, or is not valid.

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/support/import_home.h"

namespace msb::test {
namespace {

// Returns the part of the path that all layouts share: "layers/…".
std::string CacheFile(const TarEntry& entry) { return entry.name.substr(entry.name.find('/') + 1); }

bool IsImageEntry(const TarEntry& entry) {
  return entry.name.starts_with("images/") || entry.name.starts_with("cache/");
}

class HostileImageTest : public ImportHome {
 protected:
  // Expects archives to be refused whose image edit has changed, with an inventory that agrees.
  void ExpectImageRefused(const std::function<void(SampleArchive&)>& edit) {
    for (const SampleLayout layout : kSampleLayouts) {
      SampleArchive archive = MakeSampleWithImage(layout);
      SCOPED_TRACE(archive.entries[0].name);
      edit(archive);
      ExpectRefused(archive.Tar());
    }
  }

  static TarEntry& FileOf(SampleArchive& archive, const std::string& kind) {
    return *std::find_if(archive.entries.begin(), archive.entries.end(), [&](const auto& entry) {
      return IsImageEntry(entry) && CacheFile(entry).starts_with(kind + "/");
    });
  }

  static void Replace(std::string& text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
  }
};

TEST_F(HostileImageTest, AnImageThatNoSnapshotPins) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    const SampleSnapshot snapshot = MakeSampleSnapshot(layout);
    ExpectRefused(MakeSampleArchive({snapshot}, {MakeSampleImage("other:1")}).Tar());
    ExpectRefused(
        MakeSampleArchive({snapshot}, {MakeSampleImage(), MakeSampleImage("other:1")}).Tar());
    // It makes no difference if that image is installed.
    ExpectRefused(MakeSampleArchive({snapshot}, {MakeSampleImage("installed:1")}).Tar());
  }
}

TEST_F(HostileImageTest, AnyFileMissing) {
  for (const std::string kind : {"manifests", "fsmeta", "vmdk", "layers"}) {
    SCOPED_TRACE(kind);
    ExpectImageRefused([&](SampleArchive& archive) {
      std::erase_if(archive.entries, [&](const TarEntry& entry) {
        return IsImageEntry(entry) && CacheFile(entry).starts_with(kind + "/");
      });
    });
  }
}

TEST_F(HostileImageTest, AFileMore) {
  const std::string hex(64, 'a');
  for (const std::string& file : {"layers/sha256_" + hex + ".erofs",
                                  "fsmeta/sha256_" + hex + ".erofs", "vmdk/sha256_" + hex + ".vmdk",
                                  "manifests/" + hex + ".json", "disks/sha256_" + hex + ".raw"}) {
    SCOPED_TRACE(file);
    ExpectImageRefused([&](SampleArchive& archive) {
      const std::string& name = archive.entries.back().name;
      const std::string root = name.substr(0, name.find('/') + 1);
      archive.entries.push_back({.name = root + file, .content = "hostile"});
    });
  }
}

TEST_F(HostileImageTest, AVmdkThatNamesOtherFiles) {
  const std::string image_cache = "/srv/elsewhere/cache/";
  for (const std::string path :
       {"/etc/shadow", "../../../../../etc/shadow", "", "/", "/dev/sda", "relative",
        "/srv/elsewhere/cache/layers/sha256_x.erofs", "/srv/elsewhere/cache/../../../etc/shadow"}) {
    SCOPED_TRACE(path);
    // In place of the fsmeta, in place of the layer, and as an additional extent.
    for (const std::string kind : {"fsmeta", "layers"}) {
      ExpectImageRefused([&](SampleArchive& archive) {
        const std::string named = image_cache + CacheFile(FileOf(archive, kind));
        Replace(FileOf(archive, "vmdk").content, named, path);
      });
    }
    ExpectImageRefused([&](SampleArchive& archive) {
      Replace(FileOf(archive, "vmdk").content, "\n# The Disk Data Base",
              "RW 1 FLAT \"" + path + "\" 0\n\n# The Disk Data Base");
    });
  }
}

TEST_F(HostileImageTest, AVmdkThatIsOtherwiseNotAsItIsMade) {
  const std::vector<std::pair<std::string, std::string>> changes = {
      {"RW 16 ", "RW 15 "},
      {"RW 16 ", "RW 17 "},
      {"RW 16 ", "RW 99999999999999999999 "},
      {"RW 16 ", "RW -1 "},
      {"RW 16 FLAT", "RW 16 VMFS"},
      {"RW 16 FLAT", "RDONLY 16 FLAT"},
      {"\" 0\n", "\" 1\n"},
      {"parentCID=ffffffff", "parentCID=12345678\nparentFileNameHint=\"/etc/shadow\""},
      {"# Disk DescriptorFile", "# Some other file"},
      {"RW 16 FLAT", "RW 16 FLAT \"/etc/shadow\" 0\nRW 16 FLAT"}};
  for (const auto& [from, to] : changes) {
    SCOPED_TRACE(to);
    ExpectImageRefused([&, &from = from, &to = to](SampleArchive& archive) {
      Replace(FileOf(archive, "vmdk").content, from, to);
    });
  }
  for (const std::string& content : {std::string(), std::string("x"), std::string(1 << 20, '\n'),
                                     Noise(4096, 1), "KDMV" + Noise(508, 1)}) {
    SCOPED_TRACE(content.size());
    ExpectImageRefused([&](SampleArchive& archive) { FileOf(archive, "vmdk").content = content; });
  }
  // The extents in reverse order: the disk would begin with a layer.
  ExpectImageRefused([&](SampleArchive& archive) {
    const std::string fsmeta = CacheFile(FileOf(archive, "fsmeta"));
    const std::string layer = CacheFile(FileOf(archive, "layers"));
    std::string& vmdk = FileOf(archive, "vmdk").content;
    Replace(vmdk, fsmeta, "*");
    Replace(vmdk, layer, fsmeta);
    Replace(vmdk, "*", layer);
  });
}

TEST_F(HostileImageTest, MetadataWithWrongDigests) {
  const std::string other = "sha256:" + std::string(64, 'a');
  const std::vector<std::function<void(Json&)>> lies = {
      [&](Json& json) { json["manifest_digest"] = other; },
      [&](Json& json) { json["config_digest"] = other; },
      [&](Json& json) { json["layers"][0]["diff_id"] = other; },
      [&](Json& json) { json["layers"][0]["digest"] = other; },
      [&](Json& json) { json["layers"].push_back(json["layers"][0]); },
      [&](Json& json) { json["layers"].clear(); },
      [&](Json& json) {
        json["raw_manifest_json"] = json["raw_manifest_json"].get<std::string>() + " ";
      },
      [&](Json& json) {
        json["raw_config_json"] = json["raw_config_json"].get<std::string>() + " ";
      },
      [&](Json& json) { json["raw_manifest_json"] = "{}"; },
      [&](Json& json) { json["raw_config_json"] = nullptr; },
      [&](Json& json) { json.erase("raw_manifest_json"); },
      [&](Json& json) { json.erase("manifest_digest"); },
      [&](Json& json) { json = Json::array(); },
      [&](Json& json) { json = nullptr; }};
  for (const auto& lie : lies) {
    SCOPED_TRACE(&lie - lies.data());
    ExpectImageRefused([&](SampleArchive& archive) {
      TarEntry& metadata = FileOf(archive, "manifests");
      Json json = Json::parse(metadata.content);
      lie(json);
      metadata.content = json.dump();
    });
  }
  for (const std::string& content : {std::string(), std::string("x"), std::string(10'000, '[')}) {
    SCOPED_TRACE(content.substr(0, 80));
    ExpectImageRefused(
        [&](SampleArchive& archive) { FileOf(archive, "manifests").content = content; });
  }
}

// The name of the file must be the hash of the image's reference.
TEST_F(HostileImageTest, MetadataUnderAnotherName) {
  ExpectImageRefused([&](SampleArchive& archive) {
    std::string& name = FileOf(archive, "manifests").name;
    const SampleImage other = MakeSampleImage("other:1");
    name = name.substr(0, name.find('/') + 1) + other.files[0].first;
  });
}

TEST_F(HostileImageTest, FilesOtherThanThoseInstalled) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const auto& [file, content] : MakeSampleImage().files) {
      SCOPED_TRACE(file);
      WriteFile(home_ / "cache" / file, "another content");
      ExpectRefused(MakeSampleWithImage(layout).Tar());
      std::filesystem::remove(home_ / "cache" / file);
      // Not a regular file: the file that it points to must be neither written to nor trusted.
      std::filesystem::create_directories((home_ / "cache" / file).parent_path());
      std::filesystem::create_symlink(dir_ / "base.img", home_ / "cache" / file);
      ExpectRefused(MakeSampleWithImage(layout).Tar());
      std::filesystem::remove(home_ / "cache" / file);
    }
  }
}

// Two snapshots, each with the image it pins, and one of the two images damaged.
TEST_F(HostileImageTest, TheSecondOfTwoImages) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    const SampleImage other = MakeSampleImage("other:1");
    const SampleSnapshot parent = MakeSampleSnapshot(layout);
    const SampleSnapshot child =
        MakeSampleSnapshot(layout, {.seed = 2, .parent = parent.id, .image = other.image});
    SampleImage damaged = other;
    damaged.files.back().first = "layers/sha256_" + std::string(64, 'a') + ".erofs";
    ExpectRefused(MakeSampleArchive({parent, child}, {MakeSampleImage(), damaged}).Tar());
    ExpectRefused(MakeSampleArchive({parent, child}, {damaged, MakeSampleImage()}).Tar());
  }
}

}  // namespace
}  // namespace msb::test
