// SPDX-License-Identifier: Apache-2.0
//
// Damaged qcow2 files: CheckQcow2 refuses what qemu-img refuses, and reading such a file anyway
// either works or throws a proper error.

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <iterator>
#include <limits>
#include <optional>

#include "src/base/file.h"
#include "src/disk/disk_image.h"
#include "src/disk/qcow2_check.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

constexpr std::uint64_t kCopied = std::uint64_t{1} << 63;
constexpr std::uint64_t kCompressed = std::uint64_t{1} << 62;
constexpr std::uint64_t kFarAway = std::uint64_t{1} << 40;

// The bytes of a valid image, for a test to damage. The offsets of its parts are read beforehand.
class Image {
 public:
  explicit Image(std::string bytes) : bytes_(std::move(bytes)) {
    cluster = std::uint64_t{1} << Get(20, 4);
    l1 = Get(40, 8);
    l2 = Get(l1, 8) & 0xff'ffff'ffff'fe00;
    refcount_table = Get(48, 8);
    refcount_block = Get(refcount_table, 8);
    data = Get(l2, 8) & 0xff'ffff'ffff'fe00;
  }

  std::uint64_t Get(std::uint64_t offset, std::size_t length) const {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < length; ++i) {
      value = value << 8 | static_cast<unsigned char>(bytes_.at(offset + i));
    }
    return value;
  }
  void Set(std::uint64_t offset, std::size_t length, std::uint64_t value) {
    for (std::size_t i = length; i-- > 0; value >>= 8) {
      bytes_.at(offset + i) = static_cast<char>(value & 0xff);
    }
  }
  void Add(std::uint64_t offset, std::uint64_t bits) { Set(offset, 8, Get(offset, 8) | bits); }
  void Clear(std::uint64_t offset, std::uint64_t bits) { Set(offset, 8, Get(offset, 8) & ~bits); }
  // Sets the refcount of the cluster at this offset in the file. Refcounts have 16 bits.
  void SetRefcount(std::uint64_t offset, std::uint64_t count) {
    Set(refcount_block + offset / cluster * 2, 2, count);
  }
  void Resize(std::uint64_t size) { bytes_.resize(size); }
  // Overwrites the header of the first extension.
  void SetExtension(std::uint64_t type, std::uint64_t length) {
    Set(Get(100, 4), 4, type);
    Set(Get(100, 4) + 4, 4, length);
  }

  const std::string& bytes() const { return bytes_; }
  std::uint64_t size() const { return bytes_.size(); }

  // The cluster size, and offsets in the file: of the tables, and of the clusters that their first
  // entries point to.
  std::uint64_t cluster, l1, l2, refcount_table, refcount_block, data;

 private:
  std::string bytes_;
};

enum class Base { kPlain, kVersion2, kZlib, kZstd, kSubclusters };

std::string CommandFor(Base base) {
  // Data clusters, allocated zero clusters and unallocated ones. With 4 KiB clusters, two L2
  // tables.
  const std::string fill =
      " 5M && qemu-io -f qcow2 -c 'write -P 1 0 64k' -c 'write -P 2 2M 8k' -c 'write -z 16k 16k' "
      "-c 'write -z 128k 16k' a.qcow2";
  switch (base) {
    case Base::kPlain:
      return "qemu-img create -f qcow2 -o cluster_size=4k a.qcow2" + fill;
    case Base::kVersion2:
      return "qemu-img create -f qcow2 -o compat=0.10,cluster_size=4k a.qcow2 5M && "
             "qemu-io -f qcow2 -c 'write -P 1 0 64k' a.qcow2";
    case Base::kZlib:
    case Base::kZstd:
      return "seq 100000 | head -c 300000 > b.raw && qemu-img convert -c -f raw -O qcow2 -o "
             "cluster_size=4k,compression_type=" +
             std::string(base == Base::kZlib ? "zlib" : "zstd") + " b.raw a.qcow2";
    case Base::kSubclusters:
      return "qemu-img create -f qcow2 -o extended_l2=on,cluster_size=16k a.qcow2" + fill +
             " && qemu-io -f qcow2 -c 'write -P 3 1M 2k' a.qcow2";
  }
  return "";
}

// The verdict of qemu-img check.
enum class Peer { kRefuses, kLeaks, kAccepts };

struct Damage {
  std::string name;
  Base base = Base::kPlain;
  std::function<void(Image&)> apply;
  std::optional<ErrorKind> expected = ErrorKind::kSnapshotIntegrity;
  Peer peer = Peer::kRefuses;
};

using Damages = std::vector<Damage>;

Damages OfHeaders() {
  constexpr auto kUnsupported = ErrorKind::kUnsupportedOperation;
  const auto set = [](std::uint64_t offset, std::size_t length, std::uint64_t value) {
    return [=](Image& image) { image.Set(offset, length, value); };
  };
  const Base p = Base::kPlain;
  return {
      {"magic", p, set(0, 4, 0x514649fa)},
      {"version_1", p, set(4, 4, 1), kUnsupported},
      {"version_4", p, set(4, 4, 4), kUnsupported},
      {"backing_name_far", p, set(8, 8, kFarAway)},
      {"backing_name_too_long", p,
       [](Image& image) {
         image.Set(8, 8, 600);
         image.Set(16, 4, 1024);
       }},
      {"backing_name_over_the_end", p,
       [](Image& image) {
         image.Set(8, 8, image.cluster - 8);
         image.Set(16, 4, 16);
       }},
      {"backing_name_wraps", p,
       [](Image& image) {
         image.Set(8, 8, std::numeric_limits<std::uint64_t>::max() - 3);
         image.Set(16, 4, 8);
       }},
      {"clusters_of_256", p, set(20, 4, 8)},
      {"clusters_of_4_MiB", p, set(20, 4, 22)},
      {"clusters_of_2_to_the_64", p, set(20, 4, 64)},
      {"disk_of_2_to_the_63", p, set(24, 8, kCopied)},
      {"encrypted", p, set(32, 4, 1), kUnsupported},
      {"encrypted_otherwise", p, set(32, 4, 3), kUnsupported},
      {"l1_of_nothing", p, set(36, 4, 0)},
      {"l1_too_small", p, set(36, 4, 2)},
      {"l1_too_large", p, set(36, 4, (32 << 20) / 8 + 1)},
      {"l1_misaligned", p, [](Image& image) { image.Set(40, 8, image.l1 + 8); }},
      {"l1_far", p, set(40, 8, kFarAway)},
      {"l1_at_the_header", p, set(40, 8, 0)},
      {"l1_beyond_any_file", p, set(40, 8, kCopied)},
      {"l1_is_the_refcounts", p, [](Image& image) { image.Set(40, 8, image.refcount_block); }},
      {"refcounts_nowhere", p, set(48, 8, 0)},
      {"refcounts_misaligned", p,
       [](Image& image) { image.Set(48, 8, image.refcount_table + 512); }},
      {"refcounts_far", p, set(48, 8, kFarAway)},
      {"refcounts_are_data", p, [](Image& image) { image.Set(48, 8, image.data); }},
      {"refcounts_of_nothing", p, set(56, 4, 0)},
      {"refcounts_too_large", p, set(56, 4, (8 << 20) / 4096 + 1)},
      {"refcounts_without_end", p, set(56, 4, 0xffffffff)},
      {"internal_snapshots", p, set(60, 4, 1), kUnsupported},
      {"dirty", p, set(72, 8, 1), ErrorKind::kSnapshotIntegrity, Peer::kAccepts},
      {"corrupt", p, set(72, 8, 2), ErrorKind::kSnapshotIntegrity, Peer::kAccepts},
      {"external_data", p, set(72, 8, 4), kUnsupported},
      {"unknown_feature", p, set(72, 8, 32), kUnsupported},
      {"unknown_last_feature", p, set(72, 8, kCopied), kUnsupported},
      {"compression_without_type", p, set(72, 8, 8)},
      {"compression_without_feature", p, set(104, 1, 1)},
      {"unknown_compression", p,
       [](Image& image) {
         image.Set(72, 8, 8);
         image.Set(104, 1, 9);
       },
       kUnsupported},
      {"subclusters_of_128", p, set(72, 8, 16)},
      {"wide_refcounts", p, set(96, 4, 7)},
      {"short_header", p, set(100, 4, 96)},
      {"long_header", p, set(100, 4, 4104)},
      {"long_extension", p, [](Image& image) { image.SetExtension(0x12345678, 4096); }},
      {"longest_extension", p, [](Image& image) { image.SetExtension(0x12345678, 0xffffffff); }},
      {"long_backing_format", p, [](Image& image) { image.SetExtension(0xe2792aca, 17); },
       kUnsupported},
      {"file_of_a_header", p, [](Image& image) { image.Resize(112); }},
      {"file_of_half_a_header", p, [](Image& image) { image.Resize(60); }},
      // If less than a cluster is missing at the end, QEMU reads zeros there.
      {"file_without_l1", p, [](Image& image) { image.Resize(image.l1); },
       ErrorKind::kSnapshotIntegrity, Peer::kAccepts},
      {"file_without_l2", p, [](Image& image) { image.Resize(image.l2); }},
      {"file_without_its_last_cluster", p,
       [](Image& image) { image.Resize((image.size() - 1) / image.cluster * image.cluster); }},
  };
}

Damages OfRefcounts() {
  const Base p = Base::kPlain;
  return {
      {"header_not_counted", p, [](Image& image) { image.SetRefcount(0, 0); }},
      {"l1_not_counted", p, [](Image& image) { image.SetRefcount(image.l1, 0); }},
      {"l2_not_counted", p, [](Image& image) { image.SetRefcount(image.l2, 0); }},
      {"data_not_counted", p, [](Image& image) { image.SetRefcount(image.data, 0); }},
      {"table_not_counted", p, [](Image& image) { image.SetRefcount(image.refcount_table, 0); }},
      {"block_not_counted", p, [](Image& image) { image.SetRefcount(image.refcount_block, 0); }},
      {"l2_shared_but_copied", p, [](Image& image) { image.SetRefcount(image.l2, 2); }},
      {"data_shared_but_copied", p, [](Image& image) { image.SetRefcount(image.data, 2); }},
      {"block_nowhere", p, [](Image& image) { image.Set(image.refcount_table, 8, 0); }},
      {"block_with_reserved_bits", p, [](Image& image) { image.Add(image.refcount_table, 4); }},
      {"block_misaligned", p, [](Image& image) { image.Add(image.refcount_table, 512); }},
      {"block_far", p, [](Image& image) { image.Set(image.refcount_table, 8, kFarAway); }},
      {"second_block_far", p,
       [](Image& image) { image.Set(image.refcount_table + 8, 8, kFarAway); }},
      {"last_block_far", p,
       [](Image& image) { image.Set(image.refcount_table + image.cluster - 8, 8, kFarAway); }},
      {"block_used_twice", p,
       [](Image& image) { image.Set(image.refcount_table + 8, 8, image.refcount_block); }},
      {"block_is_the_table", p,
       [](Image& image) { image.Set(image.refcount_table, 8, image.refcount_table); }},
      {"block_is_data", p,
       [](Image& image) { image.Set(image.refcount_table + 8, 8, image.data); }},
      // Damage that only wastes space.
      {"a_lost_cluster", p,
       [](Image& image) {
         image.SetRefcount(image.size(), 1);
         image.Resize(image.size() + image.cluster);
       },
       std::nullopt, Peer::kLeaks},
      {"data_counted_too_often", p,
       [](Image& image) {
         image.SetRefcount(image.data, 2);
         image.Clear(image.l2, kCopied);
       },
       std::nullopt, Peer::kLeaks},
  };
}

Damages OfTables() {
  const Base p = Base::kPlain;
  Damages damages = {
      {"l1_entry_not_copied", p, [](Image& image) { image.Clear(image.l1, kCopied); }},
      {"l1_entry_low_bits", p, [](Image& image) { image.Add(image.l1, 2); }},
      {"l1_entry_high_bits", p, [](Image& image) { image.Add(image.l1, kCompressed); }},
      {"l1_entry_misaligned", p, [](Image& image) { image.Add(image.l1, 1024); }},
      {"l1_entry_far", p, [](Image& image) { image.Set(image.l1, 8, kFarAway | kCopied); }},
      {"l1_entry_at_the_end", p,
       [](Image& image) {
         image.Resize((image.size() + image.cluster - 1) / image.cluster * image.cluster);
         image.Set(image.l1, 8, image.size() | kCopied);
       }},
      {"l1_entry_without_table", p, [](Image& image) { image.Set(image.l1 + 16, 8, kCopied); }},
      {"l2_used_twice", p, [](Image& image) { image.Set(image.l1 + 8, 8, image.l2 | kCopied); }},
      {"l2_used_and_counted_twice", p,
       [](Image& image) {
         image.Set(image.l1, 8, image.l2);
         image.Set(image.l1 + 16, 8, image.l2);
         image.SetRefcount(image.l2, 2);
       },
       ErrorKind::kSnapshotIntegrity, Peer::kRefuses},
      {"l2_is_the_l1", p, [](Image& image) { image.Set(image.l1, 8, image.l1 | kCopied); }},
      {"l2_is_a_refcount_block", p,
       [](Image& image) { image.Set(image.l1, 8, image.refcount_block | kCopied); }},
      {"l2_is_data", p, [](Image& image) { image.Set(image.l1, 8, image.data | kCopied); }},
      {"data_not_copied", p, [](Image& image) { image.Clear(image.l2, kCopied); }},
      {"zeros_not_copied", p, [](Image& image) { image.Clear(image.l2 + 4 * 8, kCopied); }},
      {"data_low_bits", p, [](Image& image) { image.Add(image.l2, 2); }},
      {"data_high_bits", p, [](Image& image) { image.Add(image.l2, std::uint64_t{1} << 56); }},
      {"data_misaligned", p, [](Image& image) { image.Add(image.l2, 512); }},
      {"data_far", p, [](Image& image) { image.Set(image.l2, 8, kFarAway | kCopied); }},
      {"zeros_far", p, [](Image& image) { image.Set(image.l2, 8, kFarAway | kCopied | 1); }},
      {"data_used_twice", p,
       [](Image& image) { image.Set(image.l2 + 8, 8, image.Get(image.l2, 8)); }},
      {"data_used_twice_as_zeros", p,
       [](Image& image) { image.Set(image.l2 + 8, 8, image.Get(image.l2, 8) | 1); }},
      {"data_is_its_l2", p, [](Image& image) { image.Set(image.l2, 8, image.l2 | kCopied); }},
      {"data_is_the_l1", p, [](Image& image) { image.Set(image.l2, 8, image.l1 | kCopied); }},
      {"data_is_a_refcount_block", p,
       [](Image& image) { image.Set(image.l2, 8, image.refcount_block | kCopied); }},
      {"data_in_no_refcount_block", p,
       [](Image& image) {
         image.Resize(image.cluster * (image.cluster / 2 + 1));
         image.Set(image.l2, 8, (image.size() - image.cluster) | kCopied);
       }},
      {"data_compressed_by_a_bit", p, [](Image& image) { image.Add(image.l2, kCompressed); }},
      // QEMU finds that only when the guest reads there.
      {"zeros_of_version_2", Base::kVersion2, [](Image& image) { image.Add(image.l2, 1); },
       ErrorKind::kSnapshotIntegrity, Peer::kAccepts},
      {"version_2_not_counted", Base::kVersion2,
       [](Image& image) { image.SetRefcount(image.data, 0); }},
  };
  // Two entries share a cluster without a snapshot. QEMU accepts that if the refcount is 2.
  damages.push_back({"data_used_and_counted_twice", p,
                     [](Image& image) {
                       image.Set(image.l2, 8, image.data);
                       image.Set(image.l2 + 200 * 8, 8, image.data);
                       image.SetRefcount(image.data, 2);
                     },
                     ErrorKind::kSnapshotIntegrity, Peer::kAccepts});
  return damages;
}

Damages OfCompressed() {
  Damages damages;
  for (const auto& [base, suffix] : {std::pair(Base::kZlib, ""), std::pair(Base::kZstd, "_zstd")}) {
    const auto add = [&](const std::string& name, std::function<void(Image&)> apply) {
      damages.push_back({name + suffix, base, std::move(apply)});
    };
    add("packed_and_copied", [](Image& image) { image.Add(image.l2, kCopied); });
    add("packed_far", [](Image& image) { image.Set(image.l2, 8, kCompressed | kFarAway); });
    add("packed_at_the_end", [](Image& image) { image.Set(image.l2, 8, kCompressed | 0x100000); });
    add("packed_in_the_header", [](Image& image) { image.Set(image.l2, 8, kCompressed | 200); });
    add("packed_in_its_l2", [](Image& image) { image.Set(image.l2, 8, kCompressed | image.l2); });
    add("packed_and_used_twice",
        [](Image& image) { image.Set(image.l2 + 300 * 8, 8, image.Get(image.l2, 8)); });
    add("packed_not_counted",
        [](Image& image) { image.SetRefcount(image.Get(image.l2, 8) & 0xffff'ffff, 0); });
  }
  return damages;
}

Damages OfSubclusters() {
  const Base s = Base::kSubclusters;
  return {
      {"subclusters_of_both_kinds", s, [](Image& image) { image.Add(image.l2 + 8, kCopied); }},
      {"subclusters_nowhere", s, [](Image& image) { image.Set(image.l2, 8, 0); }},
      {"subclusters_far", s, [](Image& image) { image.Set(image.l2, 8, kFarAway | kCopied); }},
      {"subclusters_not_copied", s, [](Image& image) { image.Clear(image.l2, kCopied); }},
      {"subclusters_used_twice", s,
       [](Image& image) {
         image.Set(image.l2 + 64 * 16, 8, image.Get(image.l2, 8));
         image.Set(image.l2 + 64 * 16 + 8, 8, image.Get(image.l2 + 8, 8));
       }},
      {"subclusters_not_counted", s, [](Image& image) { image.SetRefcount(image.data, 0); }},
      {"subclusters_of_packed", s,
       [](Image& image) { image.Set(image.l2, 8, kCompressed | image.data); }},
      // A reserved bit according to the format, which QEMU ignores.
      {"subclusters_and_zeros", s, [](Image& image) { image.Add(image.l2, 1); },
       ErrorKind::kSnapshotIntegrity, Peer::kAccepts},
  };
}

// Reads everything that a guest would read, up to 64 MiB. May find damage or not.
void ReadAll(const std::filesystem::path& path) {
  std::vector<disk::ImageFile> files;
  files.push_back({base::OpenEntryAt(base::OpenDirectory(path.parent_path()).get(), "a.qcow2").fd,
                   DiskFormat::kQcow2, "a.qcow2"});
  const auto image = disk::OpenImage(Context::Background(), std::move(files));
  std::uint64_t total = 0;
  std::uint64_t position = 0;
  while (const auto extent = image->NextData(position)) {
    position = extent->end();
    total += extent->length;
    if (total > (64 << 20)) return;
    std::vector<std::byte> bytes(extent->length);
    image->Read(bytes, extent->offset);
  }
}

class Qcow2DamageTest : public ::testing::TestWithParam<Damage> {
 protected:
  int Run(const std::string& command) {
    const CommandResult run = RunCommand("cd '" + dir_.path().native() + "' && " + command);
    output_ = run.output;
    return run.status;
  }

  TempDir dir_;
  std::string output_;
};

TEST_P(Qcow2DamageTest, IsFoundAsByQemuImg) {
  const Damage& damage = GetParam();
  ASSERT_EQ(Run(CommandFor(damage.base)), 0) << output_;
  const std::filesystem::path path = dir_ / "a.qcow2";
  const auto check = [&] {
    const auto dir = base::OpenDirectory(dir_.path());
    disk::CheckQcow2(Context::Background(), base::OpenEntryAt(dir.get(), "a.qcow2").fd.get(), "a");
  };
  EXPECT_NO_THROW(check());
  Image image(ReadFile(path));
  damage.apply(image);
  WriteFile(path, image.bytes());

  const int status = Run("qemu-img check -f qcow2 a.qcow2");
  switch (damage.peer) {
    case Peer::kRefuses:
      EXPECT_TRUE(status == 1 || status == 2) << status << output_;
      break;
    case Peer::kLeaks:
      EXPECT_EQ(status, 3) << output_;
      break;
    case Peer::kAccepts:
      EXPECT_EQ(status, 0) << output_;
      break;
  }
  if (damage.expected) {
    EXPECT_MSB_ERROR(check(), *damage.expected, "qcow2 file 'a'");
  } else {
    EXPECT_NO_THROW(check());
  }
  try {
    ReadAll(path);
  } catch (const Error& e) {
    EXPECT_TRUE(e.kind() == ErrorKind::kSnapshotIntegrity ||
                e.kind() == ErrorKind::kUnsupportedOperation)
        << e.what();
  }
}

Damages All() {
  Damages all;
  for (Damages some : {OfHeaders(), OfRefcounts(), OfTables(), OfCompressed(), OfSubclusters()}) {
    std::move(some.begin(), some.end(), std::back_inserter(all));
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Damages, Qcow2DamageTest, ::testing::ValuesIn(All()),
                         [](const auto& test) { return test.param.name; });

// Compressed data is checked only when it is read.
class Qcow2PackedTest : public Qcow2DamageTest {};

TEST_P(Qcow2PackedTest, DamagedDataIsFoundWhenRead) {
  ASSERT_EQ(Run(CommandFor(GetParam().base)), 0) << output_;
  const std::filesystem::path path = dir_ / "a.qcow2";
  EXPECT_NO_THROW(ReadAll(path));
  Image image(ReadFile(path));
  const std::uint64_t packed = image.Get(image.l2, 8) & 0xffff'ffff;
  GetParam().apply(image);
  ASSERT_NE(packed, 0U);
  WriteFile(path, image.bytes());
  EXPECT_EQ(Run("qemu-img check -f qcow2 a.qcow2"), 0) << output_;
  EXPECT_NE(Run("qemu-img convert -f qcow2 -O raw a.qcow2 b.raw"), 0);
  EXPECT_MSB_ERROR(ReadAll(path), ErrorKind::kSnapshotIntegrity, "qcow2 file 'a.qcow2'",
                   "compressed");
}

Damages OfPackedData() {
  const auto overwrite = [](std::size_t skip, unsigned char value) {
    return [=](Image& image) {
      const std::uint64_t packed = image.Get(image.l2, 8) & 0xffff'ffff;
      for (std::size_t i = skip; i < 500; ++i) image.Set(packed + i, 1, value);
    };
  };
  return {{"zlib_from_the_start", Base::kZlib, overwrite(0, 0xff)},
          {"zlib_further_on", Base::kZlib, overwrite(50, 0xff)},
          {"zstd_from_the_start", Base::kZstd, overwrite(0, 0)},
          {"zstd_further_on", Base::kZstd, overwrite(9, 0xff)}};
}

INSTANTIATE_TEST_SUITE_P(Packed, Qcow2PackedTest, ::testing::ValuesIn(OfPackedData()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace msb::test
