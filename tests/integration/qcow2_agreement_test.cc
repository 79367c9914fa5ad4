// SPDX-License-Identifier: Apache-2.0
//
// Compares what the qcow2 reader sees with what qemu-img sees, on images made with qemu-img and
// qemu-io.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "src/base/file.h"
#include "src/disk/disk_image.h"
#include "src/disk/image_writer.h"
#include "src/disk/qcow2_check.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

using Extents = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

// Shell commands that make the files of a disk in an empty directory. The head is the first file.
struct Recipe {
  std::string name;
  std::string commands;
  std::vector<std::string> files = {"a.qcow2"};
};

// Returns a qemu-io command with these requests.
std::string Io(const std::string& file, const std::vector<std::string>& requests) {
  std::string command = "qemu-io -f qcow2";
  for (const std::string& request : requests) command += " -c '" + request + "'";
  return command + " " + file + " >/dev/null && ";
}

std::string Make(const std::string& options, const std::string& size = "5M") {
  return "qemu-img create -q -f qcow2 " + options + " a.qcow2 " + size + " && ";
}

// Writes data at the start, across clusters of any size, at odd offsets, and at the end.
std::string Fill(const std::string& file = "a.qcow2") {
  return Io(file,
            {"write -P 1 0 4k", "write -P 2 65000 2M", "write -P 3 3000k 512", "write -P 4 4M 1M"});
}

std::string Change(const std::string& file = "a.qcow2") {
  return Io(file, {"write -z 128k 192k", "write -z -u 512k 256k", "discard 1M 256k",
                   "write -P 9 1500k 100k", "write -P 0 1M 64k"});
}

std::vector<Recipe> Recipes() {
  std::vector<Recipe> recipes;
  const auto add = [&](std::string name, std::string commands,
                       std::vector<std::string> files = {"a.qcow2"}) {
    recipes.push_back({std::move(name), std::move(commands) + "true", std::move(files)});
  };
  for (const char* bytes :
       {"512", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1M", "2M"}) {
    const std::string options = std::string("-o cluster_size=") + bytes;
    add(std::string("clusters_") + bytes, Make(options) + Fill() + Change());
    add(std::string("version_2_clusters_") + bytes,
        Make(options + ",compat=0.10") + Fill() + Change());
  }
  for (const char* bits : {"1", "2", "4", "8", "32", "64"}) {
    add(std::string("refcounts_of_") + bits,
        Make(std::string("-o refcount_bits=") + bits) + Fill());
  }
  for (const char* bytes : {"16k", "64k", "2M"}) {
    add(std::string("subclusters_") + bytes,
        Make(std::string("-o extended_l2=on,cluster_size=") + bytes) + Fill() + Change());
  }
  for (const char* size : {"0", "512", "1536", "65536", "66048", "1000448", "5G", "3T"}) {
    add(std::string("size_") + size, Make("", size));
  }
  add("large_with_data", Make("", "6G") + Io("a.qcow2", {"write -P 7 5G 70k", "write -P 8 1M 1k"}));
  for (const char* type : {"zlib", "zstd"}) {
    for (const char* bytes : {"4k", "64k", "2M"}) {
      add(std::string("compressed_") + type + "_" + bytes,
          Make("") + Fill() + "mv a.qcow2 b.qcow2 && qemu-img convert -c -O qcow2 -o " +
              "compression_type=" + type + ",cluster_size=" + bytes + " b.qcow2 a.qcow2 && " +
              Io("a.qcow2", {"write -P 5 70k 3k"}));
    }
  }
  for (const char* mode : {"metadata", "falloc", "full"}) {
    add(std::string("preallocated_") + mode, Make(std::string("-o preallocation=") + mode));
  }
  add("lazy_refcounts", Make("-o lazy_refcounts=on") + Fill());
  add("grown", Make("") + Fill() + "qemu-img resize -q a.qcow2 9M && " +
                   Io("a.qcow2", {"write -P 6 8M 10k"}));
  add("shrunk", Make("") + Fill() + "qemu-img resize -q --shrink a.qcow2 2M && ");
  add("zeroed", Make("") + Fill() + Io("a.qcow2", {"write -z 0 5M"}));
  add("discarded", Make("") + Fill() + Io("a.qcow2", {"discard 0 5M"}));
  // Chains, with a base that is shorter or longer than the overlay.
  const std::string raw_base =
      "truncate -s 4M b.raw && yes x | head -c 300000 | dd of=b.raw bs=1k seek=1000 conv=notrunc "
      "status=none && ";
  const auto over = [](const std::string& base, const std::string& format, const std::string& head,
                       const std::string& size = "", const std::string& options = "") {
    return "qemu-img create -q -f qcow2 " + options + " -b " + base + " -F " + format + " " + head +
           " " + size + " && ";
  };
  add("on_raw", raw_base + over("b.raw", "raw", "a.qcow2") + Io("a.qcow2", {"write -P 1 1100k 5k"}),
      {"a.qcow2", "b.raw"});
  add("on_raw_longer",
      raw_base + over("b.raw", "raw", "a.qcow2", "8M") +
          Io("a.qcow2", {"write -P 1 5M 5k", "write -z 1100k 100k"}),
      {"a.qcow2", "b.raw"});
  add("on_raw_shorter", raw_base + over("b.raw", "raw", "a.qcow2", "1100k"), {"a.qcow2", "b.raw"});
  add("on_raw_subclusters",
      raw_base + over("b.raw", "raw", "a.qcow2", "", "-o extended_l2=on") +
          Io("a.qcow2", {"write -P 1 1100k 3k", "write -z 1160k 4k"}),
      {"a.qcow2", "b.raw"});
  add("on_odd_raw",
      "printf 1234567 > b.raw && truncate -s 100001 b.raw && " +
          over("b.raw", "raw", "a.qcow2", "1M"),
      {"a.qcow2", "b.raw"});
  add("two",
      Make("") + Fill() + "mv a.qcow2 b.qcow2 && " + over("b.qcow2", "qcow2", "a.qcow2") + Change(),
      {"a.qcow2", "b.qcow2"});
  add("four",
      raw_base + over("b.raw", "raw", "d.qcow2") + Io("d.qcow2", {"write -P 1 0 100k"}) +
          over("d.qcow2", "qcow2", "c.qcow2", "6M", "-o cluster_size=4k") +
          Io("c.qcow2", {"write -P 2 50k 100k", "write -z 1M 64k"}) +
          over("c.qcow2", "qcow2", "a.qcow2", "", "-o compat=0.10") +
          Io("a.qcow2", {"write -P 3 120k 1k", "write -P 4 5M 9k"}),
      {"a.qcow2", "c.qcow2", "d.qcow2", "b.raw"});
  return recipes;
}

class Qcow2AgreementTest : public ::testing::TestWithParam<Recipe> {
 protected:
  std::string Run(const std::string& command) {
    const CommandResult run = RunCommand("cd '" + dir_.path().native() + "' && " + command);
    EXPECT_EQ(run.status, 0) << command << "\n" << run.output;
    return run.output;
  }

  std::unique_ptr<disk::DiskImage> Open() {
    std::vector<disk::ImageFile> files;
    const base::UniqueFd dir = base::OpenDirectory(dir_.path());
    for (const std::string& file : GetParam().files) {
      files.push_back({base::OpenEntryAt(dir.get(), file).fd,
                       file.ends_with(".raw") ? DiskFormat::kRaw : DiskFormat::kQcow2, file});
    }
    return disk::OpenImage(Context::Background(), std::move(files));
  }

  // Expects CheckQcow2 to accept all files.
  void CheckAll() {
    const base::UniqueFd dir = base::OpenDirectory(dir_.path());
    for (const std::string& file : GetParam().files) {
      if (file.ends_with(".raw")) continue;
      const base::UniqueFd fd = base::OpenEntryAt(dir.get(), file).fd;
      EXPECT_NO_THROW(disk::CheckQcow2(Context::Background(), fd.get(), file));
    }
  }

  // Returns the extents that have data according to qemu-img. Adjacent ones are merged.
  Extents Mapped() {
    Extents extents;
    for (const auto& entry : nlohmann::json::parse(Run("qemu-img map --output=json a.qcow2"))) {
      // qemu-img reports preallocated clusters as data that reads as zeros.
      if (!entry["data"].get<bool>()) continue;
      const auto start = entry["start"].get<std::uint64_t>();
      const auto length = entry["length"].get<std::uint64_t>();
      if (!extents.empty() && extents.back().first + extents.back().second == start) {
        extents.back().second += length;
      } else {
        extents.emplace_back(start, length);
      }
    }
    return extents;
  }

  static Extents DataOf(const disk::DiskImage& image) {
    Extents extents;
    std::uint64_t position = 0;
    while (const auto extent = image.NextData(position)) {
      position = extent->end();
      if (!extents.empty() && extents.back().first + extents.back().second == extent->offset) {
        extents.back().second += extent->length;
      } else {
        extents.emplace_back(extent->offset, extent->length);
      }
    }
    return extents;
  }

  base::UniqueFd NewFile(const std::string& name) {
    return base::CreateFileAt(base::OpenDirectory(dir_.path()).get(), name, 0666);
  }

  TempDir dir_;
};

TEST_P(Qcow2AgreementTest, MapsAndReadsAsQemuImgDoes) {
  Run(GetParam().commands);
  const auto image = Open();
  EXPECT_EQ(DataOf(*image), Mapped());
  CheckAll();
  disk::WriteFlat(Context::Background(), *image, DiskFormat::kRaw, NewFile("flat.raw").get());
  disk::WriteFlat(Context::Background(), *image, DiskFormat::kQcow2, NewFile("flat.qcow2").get());
  EXPECT_EQ(std::filesystem::file_size(dir_ / "flat.raw"), image->size());
  Run("qemu-img compare -f qcow2 -F raw a.qcow2 flat.raw");
  Run("qemu-img check -q flat.qcow2 && qemu-img compare -f qcow2 -F qcow2 a.qcow2 flat.qcow2");
  // Read in pieces that begin and end anywhere.
  if (image->size() > (16 << 20)) return;
  Run("qemu-img convert -O raw a.qcow2 theirs.raw");
  const std::string expected = ReadFile(dir_ / "theirs.raw");
  std::string found(image->size(), 'x');
  for (std::uint64_t at = 0; at < found.size(); at += 77'777) {
    const std::size_t length = std::min<std::size_t>(77'777, found.size() - at);
    image->Read(std::as_writable_bytes(std::span(found)).subspan(at, length), at);
  }
  EXPECT_TRUE(found == expected.substr(0, found.size()));
}

INSTANTIATE_TEST_SUITE_P(Recipes, Qcow2AgreementTest, ::testing::ValuesIn(Recipes()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace msb::test
