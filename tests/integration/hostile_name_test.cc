// SPDX-License-Identifier: Apache-2.0
//
// Archives whose entries have names or types that no member may have.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "tests/support/import_home.h"

namespace msb::test {
namespace {

std::string Upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

class HostileNameTest : public ImportHome {
 protected:
  // Expects the name to be refused in place of each member's, and as that of an additional entry
  // before, between and after the members.
  void ExpectNameRefused(const std::string& name) {
    for (const SampleLayout layout : kSampleLayouts) {
      const SampleArchive sound = MakeSampleArchive(layout);
      for (std::size_t i = 0; i <= sound.entries.size(); ++i) {
        SCOPED_TRACE("'" + name + "' at " + std::to_string(i) + " of " + sound.entries[0].name);
        SampleArchive more = sound;
        more.entries.insert(more.entries.begin() + static_cast<std::ptrdiff_t>(i),
                            {.name = name, .content = "hostile"});
        ExpectRefused(more.Tar());
        if (i == sound.entries.size()) continue;
        SampleArchive renamed = sound;
        renamed.entries[i].name = name;
        ExpectRefused(renamed.Tar());
      }
    }
  }

  // Expects this entry to be refused at the start, before the last member, and at the end.
  void ExpectEntryRefused(const TarEntry& entry) {
    for (const SampleLayout layout : kSampleLayouts) {
      SampleArchive archive = MakeSampleArchive(layout);
      for (const std::size_t i :
           {std::size_t{0}, archive.entries.size() - 1, archive.entries.size()}) {
        SCOPED_TRACE(std::string("type ") + entry.type + " at " + std::to_string(i) + " of " +
                     archive.entries[0].name);
        SampleArchive more = archive;
        more.entries.insert(more.entries.begin() + static_cast<std::ptrdiff_t>(i), entry);
        ExpectRefused(more.Tar());
      }
    }
  }
};

TEST_F(HostileNameTest, PathsThatLeaveTheDestination) {
  for (const std::string& name :
       {std::string("../x"), std::string("a/../../x"), std::string("/etc/x"), std::string(".."),
        std::string("/"), std::string("."), std::string("./snapshots/.."),
        std::string("snapshots/../../x"), std::string("files/../snapshot.json"),
        std::string("..\\x"), std::string("C:\\x"), std::string("snapshots\\x\\snapshot.json"),
        std::string("cache/../x"), std::string("images/layers/../../../x"),
        std::string("layers/../../x.raw"), std::string("cache/layers/../../../x"),
        (dir_ / "evil").native()}) {
    ExpectNameRefused(name.substr(0, 100));
  }
}

TEST_F(HostileNameTest, PathsThatAreNoMembers) {
  const std::string hex(64, 'a');
  for (const std::string& name : {std::string(),
                                  std::string(" "),
                                  std::string("x"),
                                  std::string("x/y"),
                                  std::string("manifest.json"),
                                  std::string("snapshot.json"),
                                  std::string("upper.ext4"),
                                  std::string("sha256-0123456789abcdef"),
                                  std::string("snapshots"),
                                  std::string("cache"),
                                  "snapshots/" + hex,
                                  "snapshots/" + hex + "/upper.ext4",
                                  "files/" + hex,
                                  "files/" + hex + "/a/b",
                                  "files/" + hex + "/..",
                                  "files/" + hex + "/.",
                                  "files/" + hex + "/snapshot.json",
                                  "files/" + hex + "/manifest.json",
                                  "files/" + hex + "/.manifest.json.legacy",
                                  "files/" + hex + "/.snapshot-migration.lock",
                                  std::string("layers/layer_x/y.raw"),
                                  std::string("layers/.raw"),
                                  std::string("layers/x"),
                                  "images/layers/sha256_" + hex,
                                  "images/other/sha256_" + hex + ".erofs",
                                  "cache/tmp/sha256_" + hex + ".erofs",
                                  "cache/db/sha256_" + hex + ".erofs",
                                  std::string("cache/layers/x.erofs"),
                                  std::string("images/manifests/x.json"),
                                  std::string("db/msb.db"),
                                  std::string("archive.json/x"),
                                  std::string("./archive.json"),
                                  "files//" + hex + "/x",
                                  std::string("sha256-0123456789abcdef/other")}) {
    ExpectNameRefused(name);
  }
}

// These name the same file on a file system that folds case, and another file elsewhere.
TEST_F(HostileNameTest, TheNamesOfMembersInOtherForms) {
  const std::vector<std::function<std::string(std::string)>> forms = {
      [](const std::string& name) { return name + "/"; },
      [](const std::string& name) { return "./" + name; },
      [](const std::string& name) { return "/" + name; },
      [](const std::string& name) { return Replaced(name, "/", "//"); },
      [](const std::string& name) { return Replaced(name, "/", "/./"); },
      [](const std::string& name) { return Replaced(name, "/", "\\"); },
      [](const std::string& name) { return name + " "; },
      [](const std::string& name) { return " " + name; },
      [](const std::string& name) { return name + "\n"; },
      [](const std::string& name) { return Upper(name); },
      [](const std::string& name) { return Upper(name.substr(0, 1)) + name.substr(1); },
      [](const std::string& name) {
        const std::size_t file = name.rfind('/') + 1;
        return name.substr(0, file) + Upper(name.substr(file));
      },
      [](const std::string& name) {
        const std::size_t id = name.find_first_of("0123456789");
        const std::size_t file = name.rfind(name.ends_with(".raw") ? '.' : '/');
        return name.substr(0, id) + Upper(name.substr(id, file - id)) + name.substr(file);
      }};
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive sound = MakeSampleArchive(layout);
    for (const auto& form : forms) {
      for (std::size_t i = 0; i < sound.entries.size(); ++i) {
        SampleArchive renamed = sound;
        renamed.entries[i].name = form(sound.entries[i].name);
        SCOPED_TRACE(renamed.entries[i].name);
        ExpectRefused(renamed.Tar());
      }
    }
  }
}

TEST_F(HostileNameTest, LinksAndDevices) {
  const std::string payload = MakeSampleArchive(SampleLayout::kInventory).entries[1].name;
  for (const char type : {'1', '2', '3', '4', '6'}) {
    for (const std::string link : {"", "/etc/passwd", "../../../x", "archive.json"}) {
      ExpectEntryRefused({.name = payload, .type = type, .link = link});
      ExpectEntryRefused({.name = "x", .type = type, .link = link});
    }
  }
  // In place of the payload, followed by a valid payload that would be written through it.
  for (const SampleLayout layout : kSampleLayouts) {
    for (const char type : {'1', '2', '3', '4', '6'}) {
      SampleArchive archive = MakeSampleArchive(layout, {.sparse = false});
      TarEntry& upper = archive.entries.back();
      SCOPED_TRACE(std::string("type ") + type + " for " + upper.name);
      SampleArchive twice = archive;
      twice.entries.insert(twice.entries.end() - 1,
                           {.name = upper.name, .type = type, .link = (dir_ / "evil").native()});
      ExpectRefused(twice.Tar());
      const Json inventory = layout == SampleLayout::kLegacy ? Json() : archive.Inventory();
      upper.type = type;
      upper.link = "../../../base.img";
      ExpectRefused(layout == SampleLayout::kLegacy ? archive.Tar() : archive.TarWith(inventory));
    }
  }
  EXPECT_FALSE(std::filesystem::exists(dir_ / "evil"));
}

TEST_F(HostileNameTest, TypesThatAreNotUsed) {
  for (const char type : {'7', 'A', 'D', 'M', 'N', 'V', 'X', 'Z', '\xff'}) {
    ExpectEntryRefused({.name = "sha256-0123456789abcdef/upper.ext4", .type = type});
    for (const SampleLayout layout : kSampleLayouts) {
      SampleArchive archive = MakeSampleArchive(layout, {.sparse = false});
      SCOPED_TRACE(std::string("type ") + type + " for " + archive.entries[0].name);
      const std::string inventory = archive.Inventory().dump();
      for (TarEntry& entry : archive.entries) {
        const char good = std::exchange(entry.type, type);
        std::vector<TarEntry> entries = archive.entries;
        if (layout != SampleLayout::kLegacy) {
          entries.push_back({.name = "archive.json", .content = inventory});
        }
        ExpectRefused(TarArchive(entries));
        entry.type = good;
      }
    }
  }
}

TEST_F(HostileNameTest, DirectoriesElsewhere) {
  for (const std::string& name : {std::string("../x/"), (dir_ / "evil/").native().substr(0, 100),
                                  std::string("snapshots/../../x/"), std::string("db/")}) {
    ExpectEntryRefused({.name = name, .type = '5'});
  }
}

// These change the next entry. No member needs them.
TEST_F(HostileNameTest, PaxHeadersAndGnuLongNames) {
  const std::string inventory_upper =
      "files/" + MakeSampleArchive(SampleLayout::kInventory).snapshots[0].digest.substr(7) +
      "/upper.ext4";
  for (const char type : {'x', 'g'}) {
    for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
             {"path", "../x"},
             {"path", "/etc/x"},
             {"path", inventory_upper},
             {"linkpath", "/etc/passwd"},
             {"size", "7"},
             {"size", "-1"},
             {"GNU.sparse.major", "1"},
             {"GNU.sparse.name", "../x"},
             {"GNU.sparse.realsize", "9223372036854775807"},
             {"comment", "nothing"},
             {"path", std::string(10 << 10, 'a')}}) {
      SCOPED_TRACE(key + "=" + value.substr(0, 80));
      ExpectEntryRefused(
          {.name = "././@PaxHeader", .content = PaxRecords({{key, value}}), .type = type});
    }
    for (const std::string garbage : {"", "no record", "99999999999 path=x\n", "0 path=x\n"}) {
      SCOPED_TRACE(garbage);
      ExpectEntryRefused({.name = "././@PaxHeader", .content = garbage, .type = type});
    }
  }
  for (const char type : {'L', 'K'}) {
    for (const std::string& name :
         {std::string("../x"), std::string("/etc/x"), std::string("archive.json"), inventory_upper,
          std::string(), std::string(10 << 10, 'a'), std::string(100 << 10, 'a')}) {
      SCOPED_TRACE(name.substr(0, 80));
      ExpectEntryRefused({.name = "././@LongLink", .content = name + '\0', .type = type});
    }
  }
}

// POSIX has the first part of a long name in this field; GNU has times there.
TEST_F(HostileNameTest, NamesWithAPrefix) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const std::string prefix : {"..", "/etc", "snapshots", "../../x"}) {
      SampleArchive archive = MakeSampleArchive(layout);
      SCOPED_TRACE(prefix + " for " + archive.entries[0].name);
      archive.entries[0].patches = {{kTarMagicField, std::string("ustar\0"
                                                                 "00",
                                                                 8)},
                                    {345, prefix + '\0'}};
      ExpectRefused(archive.Tar());
    }
  }
}

}  // namespace
}  // namespace msb::test
