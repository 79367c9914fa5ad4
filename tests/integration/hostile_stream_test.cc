// SPDX-License-Identifier: Apache-2.0
//
// Archives that are truncated, damaged or followed by other data, and files that are not archives;
// plain and compressed.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/import_home.h"
#include "tests/support/zstd_frame.h"

namespace msb::test {
namespace {

using HostileStreamTest = ImportHome;

TEST_F(HostileStreamTest, CutAtEveryRecordAndWithin) {
  for (const SampleLayout layout : kSampleLayouts) {
    const std::string sound = MakeSampleArchive(layout).Tar();
    for (std::size_t size = 0; size < sound.size(); size += kTarRecordBytes / 2) {
      SCOPED_TRACE(std::to_string(size) + " bytes of layout " +
                   std::to_string(static_cast<int>(layout)));
      ExpectRefused(sound.substr(0, size));
    }
  }
}

TEST_F(HostileStreamTest, CutWhereCompressed) {
  for (const SampleLayout layout : kSampleLayouts) {
    const std::string sound = Compress(MakeSampleArchive(layout).Tar());
    std::vector<std::size_t> sizes = {1, 3, 4, 5, 6, 9};
    for (std::size_t i = 0; i < 40; ++i) sizes.push_back(sound.size() * i / 40);
    // The last four bytes are the checksum, after the last block.
    for (std::size_t i = 1; i <= 12; ++i) sizes.push_back(sound.size() - i);
    for (const std::size_t size : sizes) {
      SCOPED_TRACE(std::to_string(size) + " of " + std::to_string(sound.size()) +
                   " bytes of layout " + std::to_string(static_cast<int>(layout)));
      ExpectRefused(sound.substr(0, size));
    }
  }
}

TEST_F(HostileStreamTest, DamagedWhereCompressed) {
  for (const SampleLayout layout : kSampleLayouts) {
    // No integrity is recorded, so that only the checksum of the frame shows the damage.
    const std::string sound = Compress(MakeSampleArchive(layout, {.algorithm = ""}).Tar());
    for (std::size_t i = 0; i < 40; ++i) {
      const std::size_t at = 16 + (sound.size() - 17) * i / 39;
      SCOPED_TRACE(std::to_string(at) + " of " + std::to_string(sound.size()));
      std::string damaged = sound;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
      ExpectRefused(damaged);
    }
  }
}

TEST_F(HostileStreamTest, MalformedEnds) {
  const std::string zeros(kTarRecordBytes, '\0');
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive archive = MakeSampleArchive(layout);
    SCOPED_TRACE(archive.entries[0].name);
    if (layout != SampleLayout::kLegacy) {
      archive.entries.push_back(InventoryEntry(archive.Inventory()));
    }
    std::string entries;
    std::vector<std::size_t> starts;
    for (const TarEntry& entry : archive.entries) {
      starts.push_back(entries.size());
      entries += TarBytes(entry);
    }
    ExpectRefused(entries);
    ExpectRefused(entries + zeros);
    ExpectRefused(entries + zeros + std::string(511, '\0'));
    ExpectRefused(entries + zeros + std::string(kTarRecordBytes, 'x'));
    ExpectRefused(Compress(entries));
    ExpectRefused(Compress(entries + zeros));
    for (const std::size_t start : starts) {
      SCOPED_TRACE("zeros at " + std::to_string(start));
      ExpectRefused(std::string(entries).insert(start, zeros) + TarEnd());
      ExpectRefused(std::string(entries).insert(start, TarEnd()) + TarEnd());
    }
  }
}

TEST_F(HostileStreamTest, MoreBehindTheEnd) {
  for (const SampleLayout layout : kSampleLayouts) {
    const std::string sound = MakeSampleArchive(layout).Tar();
    const std::string other = MakeSampleArchive(layout, {.seed = 2}).Tar();
    const TarEntry extra{.name = "../x", .content = "hostile"};
    for (const std::string& more :
         {std::string("x"), std::string(511, 'x'), std::string(kTarRecordBytes, 'x'),
          TarBytes(extra), TarArchive({extra}),
          std::string(kTarRecordBytes, '\0') + TarBytes(extra), sound, other}) {
      SCOPED_TRACE(std::to_string(more.size()) + " bytes behind layout " +
                   std::to_string(static_cast<int>(layout)));
      ExpectRefused(sound + more);
      ExpectRefused(Compress(sound + more));
    }
  }
}

// Released readers stop after the first frame, so they would not see data in further frames.
TEST_F(HostileStreamTest, MoreThanOneFrame) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    const std::string sound = MakeSampleArchive(layout).Tar();
    const std::string frame = Compress(sound);
    const std::string half = sound.substr(0, sound.size() / 2);
    ExpectRefused(Compress(half) + Compress(sound.substr(half.size())));
    ExpectRefused(frame + frame);
    ExpectRefused(frame + Compress(""));
    ExpectRefused(Compress("") + frame);
    ExpectRefused(SkippableFrame("note") + frame);
    ExpectRefused(frame + sound);
    ExpectRefused(frame + "x");
    ExpectRefused(frame + std::string(1, '\0'));
    ExpectRefused(frame + TarEnd());
    ExpectRefused(frame + frame.substr(0, 4));
    ExpectRefused(Compress(frame));
  }
}

TEST_F(HostileStreamTest, AWindowThatWouldTakeAllMemory) {
  for (const SampleLayout layout : kSampleLayouts) {
    const std::string sound = MakeSampleArchive(layout).Tar();
    ExpectRefused(StoredFrame({{.bytes = sound}}, 31));
    ExpectRefused(StoredFrame({{.bytes = sound}}, 41));
  }
}

TEST_F(HostileStreamTest, RefusesFilesThatAreNotArchives) {
  const std::string gzip(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00"
      "\x00\x00",
      20);
  for (const std::string& bytes : {std::string(),
                                   std::string("x"),
                                   std::string("not an archive\n"),
                                   std::string(4096, 'x'),
                                   std::string(511, '\0'),
                                   std::string(512, '\0'),
                                   TarEnd(),
                                   std::string(10240, '\0'),
                                   gzip,
                                   Noise(511, 1),
                                   Noise(512, 2),
                                   Noise(100'000, 3),
                                   std::string("\x28\xb5\x2f\xfd"),
                                   "\x28\xb5\x2f\xfd" + Noise(1000, 4),
                                   Compress(""),
                                   Compress("not an archive\n"),
                                   Compress(TarEnd()),
                                   Compress(gzip),
                                   std::string("PK\x03\x04") + Noise(1000, 5),
                                   ReadFile(dir_ / "base.img"),
                                   SkippableFrame("note")}) {
    SCOPED_TRACE(std::to_string(bytes.size()) + " bytes");
    ExpectRefused(bytes);
  }
}

TEST_F(HostileStreamTest, SaysWhatAFileIsThatIsNoArchive) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "the archive is empty: the program that should have written it has failed"},
      {"\x1f\x8b\x08" + Noise(100, 1), "unpack it with 'gzip -dc', and import the result"},
      {std::string("\xfd\x37zXZ\0", 6) + Noise(10'000, 2), "unpack it with 'xz -dc'"},
      {"BZh91AY&SY" + Noise(100'000, 3), "unpack it with 'bzip2 -dc'"},
      {"PK\x03\x04" + Noise(1000, 4), "unpack it with 'unzip -p'"},
      {"\x50\x2a\x4d\x18" + Noise(1000, 5), "unpack it with 'zstd -dc'"},
      {"QFI\xfb" + Noise(10'000, 6),
       "it is not a snapshot archive but a qcow2 image: create a "
       "sandbox from it with WithImage"},
      {"KDMV" + std::string(100'000, '\0'), "but a VMDK image: create a sandbox from it"},
      {std::string(1080, '\0') + "\x53\xef" + Noise(100'000, 7),
       "but a raw disk image with the file system ext4: create a sandbox from it"},
      {std::string(1080, '\0') + "\x53\xef" + std::string((20 << 20) - 1082, '\0'),
       "but a raw disk image with the file system ext4: create a sandbox from it"},
      {std::string(510, 'x') + "\x55\xaa", "but a raw disk image: create a sandbox from it"},
      {"text\n",
       "it is not a snapshot archive, or its start is damaged: give an archive that "
       "Snapshot::Export wrote"},
      {std::string(1 << 20, '\0') + "x", "it is not a snapshot archive, or its start is damaged"},
      {std::string(20 << 20, '\0'), "it is not a snapshot archive, or its start is damaged"}};
  for (const auto& [bytes, message] : cases) {
    WriteFile(dir_ / "other", bytes);
    EXPECT_MSB_ERROR(Snapshot::Import(ctx_, dir_ / "other", "", client_),
                     ErrorKind::kSnapshotIntegrity, message);
  }
}

TEST_F(HostileStreamTest, NamesTheEntryOfAForeignArchive) {
  WriteFile(dir_ / "vm.ova", TarArchive({{.name = "vm.ovf", .content = "<Envelope/>"}}));
  EXPECT_MSB_ERROR(Snapshot::Import(ctx_, dir_ / "vm.ova", "", client_),
                   ErrorKind::kSnapshotIntegrity, "/vm.ova",
                   "archive entry 'vm.ovf' is not a path of a snapshot archive",
                   "give an archive that Snapshot::Export wrote", "with WithImage");
  std::filesystem::create_directories(dir_ / "x/blobs");
  const auto packed = RunCommand(
      fmt::format("cd '{}' && tar --format=ustar -cf image.tar -C x blobs", dir_.path().native()));
  ASSERT_EQ(packed.status, 0) << packed.output;
  EXPECT_MSB_ERROR(Snapshot::Import(ctx_, dir_ / "image.tar", "", client_),
                   ErrorKind::kSnapshotIntegrity, "'blobs/' is an unexpected directory",
                   "give an archive that Snapshot::Export wrote");
}

TEST_F(HostileStreamTest, SaysThatAnArchiveWasRepacked) {
  Client client = LocalClient(dir_ / "sender");
  MakeStoppedSandbox(client, "base", dir_ / "base.img");
  Snapshot::Create(ctx_, "base", {.name = "s"}, client);
  Snapshot::Export(ctx_, "s", dir_ / "s.tar", {.plain_tar = true}, client);
  const auto repacked = RunCommand(fmt::format(
      "cd '{0}' && mkdir x && tar -xf s.tar -C x && tar --format=posix -cf y.tar -C x .",
      dir_.path().native()));
  ASSERT_EQ(repacked.status, 0) << repacked.output;
  EXPECT_MSB_ERROR(Snapshot::Import(ctx_, dir_ / "y.tar", "", client_),
                   ErrorKind::kSnapshotIntegrity, "has a pax header", "repacked",
                   "copy or export it again");
}

TEST_F(HostileStreamTest, RefusesEntriesThatAreNotFiles) {
  ExpectPathRefused(dir_ / "absent", {ErrorKind::kIO});
  ExpectPathRefused(dir_ / "absent/archive", {ErrorKind::kIO});
  ExpectPathRefused(dir_ / "base.img/archive", {ErrorKind::kIO});
  ExpectPathRefused(dir_.path(), {ErrorKind::kIO});
  ExpectPathRefused("/", {ErrorKind::kIO});
  ExpectPathRefused("", {ErrorKind::kIO, ErrorKind::kInvalidArgument});
  ExpectPathRefused("/dev/null", {ErrorKind::kIO, ErrorKind::kSnapshotIntegrity});
  ExpectPathRefused("/dev/zero", {ErrorKind::kIO, ErrorKind::kSnapshotIntegrity});
  ExpectPathRefused("/dev/urandom", {ErrorKind::kIO, ErrorKind::kSnapshotIntegrity});
}

}  // namespace
}  // namespace msb::test
