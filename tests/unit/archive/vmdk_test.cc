// SPDX-License-Identifier: Apache-2.0

#include "src/archive/vmdk.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "tests/support/support.h"

namespace msb::archive {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kMetadataFile = "fsmeta/sha256_" + std::string(64, 'a') + ".erofs";
const std::string kLayer = "layers/sha256_" + std::string(64, 'b') + ".erofs";
const std::string kOther = "layers/sha256_" + std::string(64, 'c') + ".erofs";

// Returns a descriptor as the runtimes write it, with these lines for the extents.
std::string Text(const std::string& extents) {
  return "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
         "createType=\"twoGbMaxExtentFlat\"\n\n# Extent description\n" +
         extents +
         "\n# The Disk Data Base\n#DDB\nddb.virtualHWVersion = \"4\"\n"
         "ddb.geometry.cylinders = \"1\"\nddb.geometry.heads = \"16\"\n"
         "ddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n";
}

std::string Flat(std::uint64_t sectors, const std::string& path, std::uint64_t first = 0) {
  return fmt::format("RW {} FLAT \"{}\" {}\n", sectors, path, first);
}

// Returns why text is refused, or an empty string if it is valid.
std::string Refusal(const std::string& text, const std::vector<JoinedFile>& files) {
  try {
    CheckVmdk(ParseVmdk(text), files);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "";
}

TEST(VmdkTest, ReadsAndWritesFilesOfReleases) {
  for (const std::string& release : test::FixtureReleases()) {
    const test::TempDir dir;
    const fs::path cache = test::UnpackFixtureHome(release, dir.path()) / "cache";
    const std::string name = fs::directory_iterator(cache / "vmdk")->path().filename();
    const std::string text = test::ReadFile(cache / "vmdk" / name);
    const std::vector<VmdkExtent> extents = ParseVmdk(text);
    ASSERT_EQ(extents.size(), 2U) << release;
    EXPECT_EQ(extents[0].file, "fsmeta/" + fs::path(name).stem().native() + ".erofs");
    EXPECT_EQ(extents[0].sectors, 16U);
    EXPECT_EQ(extents[1].sectors, 32U);
    CheckVmdk(extents, {{extents[0].file, fs::file_size(cache / extents[0].file)},
                        {extents[1].file, fs::file_size(cache / extents[1].file)}});
    EXPECT_EQ(FormatVmdk("/srv/msb/cache", extents), text);
  }
}

// As release 0.6.18 wrote it for a layer of 4,700,008,448 bytes.
TEST(VmdkTest, ReadsAndWritesAFileInSeveralExtents) {
  std::string text =
      Text(Flat(17944, "/c/" + kMetadataFile) + Flat(4194304, "/c/" + kLayer) +
           Flat(4194304, "/c/" + kLayer, 4194304) + Flat(791096, "/c/" + kLayer, 8388608));
  text.replace(text.find("cylinders = \"1\""), 15, "cylinders = \"9125\"");
  EXPECT_EQ(Refusal(text, {{kMetadataFile, 9187328}, {kLayer, 4700008448}}), "");
  EXPECT_EQ(FormatVmdk("/c", ParseVmdk(text)), text);
}

// As all releases write it for an image that has a layer twice.
TEST(VmdkTest, TakesALayerTwice) {
  const std::string text = Text(Flat(1, "/c/" + kMetadataFile) + Flat(2, "/c/" + kLayer) +
                                Flat(3, "/c/" + kOther) + Flat(2, "/c/" + kLayer));
  EXPECT_EQ(Refusal(text, {{kMetadataFile, 512}, {kLayer, 1024}, {kOther, 1536}, {kLayer, 1024}}),
            "");
  EXPECT_THAT(Refusal(text, {{kMetadataFile, 512}, {kLayer, 1024}, {kOther, 1536}}),
              HasSubstr("after"));
}

TEST(VmdkTest, KeepsZerosBetweenFiles) {
  const std::string text = Text("RW 7 ZERO\n" + Flat(1, "/c/" + kMetadataFile) + "RW 8 ZERO\n" +
                                Flat(2, "/c/" + kLayer) + "RW 9 ZERO\n");
  EXPECT_EQ(Refusal(text, {{kMetadataFile, 512}, {kLayer, 1024}}), "");
  EXPECT_EQ(FormatVmdk("/c", ParseVmdk(text)), text);
}

TEST(VmdkTest, NamesTheCacheThatItIsWrittenFor) {
  const auto extents = ParseVmdk(Text(Flat(1, "/c/" + kMetadataFile) + Flat(2, "/c/" + kLayer)));
  EXPECT_EQ(
      FormatVmdk("/home/é x/cache", extents),
      Text(Flat(1, "/home/é x/cache/" + kMetadataFile) + Flat(2, "/home/é x/cache/" + kLayer)));
  for (const char* cache : {"c", "", "/c\"", "/c\nRW 1 FLAT", "/c\xff"}) {
    EXPECT_MSB_ERROR(FormatVmdk(cache, extents), ErrorKind::kUnsupportedOperation,
                     "cannot store images in ", "an absolute path in UTF-8",
                     "set Config::cache_dir");
  }
}

TEST(VmdkTest, RefusesPathsThatAreNoImageFiles) {
  for (const std::string& path :
       {std::string("/etc/shadow"), kMetadataFile, "c/" + kMetadataFile, std::string(),
        std::string("/"), "/c/" + kMetadataFile + "/../../../etc/shadow",
        "/c/" + kMetadataFile + ".lock", "/c/fsmeta/sha256_" + std::string(63, 'a') + ".erofs",
        "/c/fsmeta/sha256_" + std::string(64, 'A') + ".erofs", "/c/vmdk/" + kMetadataFile.substr(7),
        "/c/xfsmeta/" + kMetadataFile.substr(7), "/etc/shadow\" 0 \"/" + kMetadataFile,
        "/c/disks/sha256_" + std::string(64, 'a') + ".raw"}) {
    EXPECT_THAT(Refusal(Text(Flat(1, path)), {{kMetadataFile, 512}}), HasSubstr("line 8")) << path;
  }
  EXPECT_EQ(Refusal(Text(Flat(1, "/c/" + kMetadataFile)), {{kMetadataFile, 512}}), "");
}

TEST(VmdkTest, RefusesFilesOfTwoCaches) {
  const std::vector<JoinedFile> files = {{kMetadataFile, 512}, {kLayer, 512}};
  EXPECT_THAT(Refusal(Text(Flat(1, "/c/" + kMetadataFile) + Flat(1, "/d/" + kLayer)), files),
              HasSubstr("line 9 names a file in another directory"));
  EXPECT_EQ(Refusal(Text(Flat(1, "/d/" + kMetadataFile) + Flat(1, "/d/" + kLayer)), files), "");
}

TEST(VmdkTest, RefusesExtentsThatAreNotWellFormed) {
  const std::string path = "\"/c/" + kMetadataFile + "\"";
  for (const std::string& line : {"RW 1 FLAT " + path,
                                  "RW 1 FLAT " + path + " ",
                                  "RW 1 FLAT " + path + " 0 ",
                                  "RW 1 FLAT " + path + " -1",
                                  "RW 1 FLAT " + path + " 00",
                                  "RW 1 FLAT " + path + " 0\r",
                                  "RW 0 FLAT " + path + " 0",
                                  "RW  1 FLAT " + path + " 0",
                                  "RW +1 FLAT " + path + " 0",
                                  "RW 01 FLAT " + path + " 0",
                                  "RW 0x1 FLAT " + path + " 0",
                                  "RW FLAT " + path + " 0",
                                  "RW 18446744073709551617 FLAT " + path + " 0",
                                  "RW 99999999999999 FLAT " + path + " 0",
                                  "RW 1 SPARSE " + path + " 0",
                                  "RDONLY 1 FLAT " + path + " 0",
                                  "rw 1 FLAT " + path + " 0",
                                  " RW 1 FLAT " + path + " 0",
                                  std::string("RW 1 FLAT \""),
                                  std::string("RW 1 FLAT \"\" 0"),
                                  std::string("RW 1 FLAT \" 0"),
                                  std::string("RW 1 ZERO 0"),
                                  std::string("RW 1"),
                                  std::string("RW 0 ZERO"),
                                  std::string("RW ")}) {
    EXPECT_THAT(Refusal(Text(line + "\n"), {{kMetadataFile, 512}}), HasSubstr("line 8")) << line;
  }
}

TEST(VmdkTest, RefusesLinesThatNoRuntimeWrites) {
  const std::string extent = Flat(1, "/c/" + kMetadataFile);
  for (const std::string line :
       {"parentFileNameHint=\"/etc/shadow\"", "parentCID=fffffffe", "version=2",
        "createType=\"monolithicFlat\"", "createType=vmfs", "CID=fffffffe0", "CID=\"fffffff",
        "ddb.x = \"/etc/shadow\"", "ddb.x = \"", "ddb.x/y = \"1\"", "ddb.x=1", "changeTrackPath=x",
        "\t", "include"}) {
    EXPECT_THAT(Refusal(Text(extent + line + "\n"), {{kMetadataFile, 512}}), HasSubstr("line 9"))
        << line;
  }
  EXPECT_THAT(Refusal(extent, {{kMetadataFile, 512}}), HasSubstr("line 1"));
  EXPECT_THAT(Refusal("", {}), HasSubstr("no extents"));
  EXPECT_THAT(Refusal(Text(""), {}), HasSubstr("no extents"));
}

TEST(VmdkTest, RefusesLongTextAndInvalidUtf8) {
  const std::string extent = Flat(1, "/c/" + kMetadataFile);
  const std::vector<JoinedFile> files = {{kMetadataFile, 512}};
  EXPECT_THAT(Refusal(Text(extent + "#\xff\n"), files), HasSubstr("UTF-8"));
  EXPECT_THAT(Refusal(Text(extent + "#" + std::string(1, '\0') + "\n"), files), HasSubstr("UTF-8"));
  const std::size_t rest = kMaxVmdkBytes - Text(extent + "#\n").size();
  EXPECT_EQ(Refusal(Text(extent + "#" + std::string(rest, 'x') + "\n"), files), "");
  EXPECT_THAT(Refusal(Text(extent + "#" + std::string(rest + 1, 'x') + "\n"), files),
              HasSubstr("longer"));
}

TEST(VmdkTest, RefusesExtentsThatAreNotTheFiles) {
  const std::string fsmeta = "/c/" + kMetadataFile;
  const std::string layer = "/c/" + kLayer;
  const std::vector<JoinedFile> files = {{kMetadataFile, 512}, {kLayer, 1024}};
  EXPECT_EQ(Refusal(Text(Flat(1, fsmeta) + Flat(2, layer)), files), "");
  for (const std::string& extents :
       {Flat(1, fsmeta), Flat(2, layer), Flat(2, layer) + Flat(1, fsmeta),
        Flat(1, fsmeta) + Flat(1, layer), Flat(1, fsmeta) + Flat(3, layer),
        Flat(1, fsmeta) + Flat(2, layer, 1), Flat(1, fsmeta) + Flat(1, layer) + Flat(1, layer),
        Flat(1, fsmeta) + Flat(1, layer, 1) + Flat(1, layer),
        Flat(1, fsmeta) + Flat(1, layer) + Flat(2, layer, 1),
        Flat(1, fsmeta) + Flat(2, layer) + Flat(1, "/c/" + kOther),
        Flat(1, fsmeta) + Flat(1, fsmeta) + Flat(2, layer), Flat(2, layer) + Flat(2, layer)}) {
    EXPECT_NE(Refusal(Text(extents), files), "") << extents;
  }
  EXPECT_NE(Refusal(Text(Flat(1, fsmeta)), {{kMetadataFile, 511}}), "");
  EXPECT_NE(Refusal(Text(Flat(1, fsmeta)), {{kMetadataFile, 513}}), "");
  EXPECT_NE(Refusal(Text(Flat(1, fsmeta)), {{kMetadataFile, 512}, {kLayer, 0}}), "");
}

}  // namespace
}  // namespace msb::archive
