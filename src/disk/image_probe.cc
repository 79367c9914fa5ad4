// SPDX-License-Identifier: Apache-2.0

#include "src/disk/image_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "src/base/big_endian.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/convert_command.h"
#include "src/disk/qcow2_header.h"
#include "src/disk/qcow2_layout.h"
#include "src/disk/qcow2_tables.h"

namespace msb::disk {
namespace {

using base::Quoted;
using base::Throw;
using namespace std::string_view_literals;

constexpr std::string_view kQcowMagic = "QFI\xfb";
constexpr std::uint64_t kFooterBytes = 512;  // VHD and DMG have their magic at the end.

// The step that makes a disk image of a file in an unsupported format.
enum class Remedy { kConvert, kDecrypt, kExpand, kUnpackTar };

// Describes an unsupported format by its magic number.
struct Signature {
  std::string_view name;    // Used in messages.
  std::string_view driver;  // The name of the format in qemu-img, for kConvert.
  std::uint64_t offset = 0;
  std::string_view magic;
  bool from_end = false;  // offset counts back from the end of the file.
  Remedy remedy = Remedy::kConvert;
};

constexpr std::array<Signature, 18> kSignatures = {{
    {"a VMDK image", "vmdk", 0, "KDMV"sv},
    {"a VMDK image", "vmdk", 0, "COWD"sv},
    {"a VMDK descriptor", "vmdk", 0, "# Disk DescriptorFile"sv},
    {"a VDI image", "vdi", 64, "\x7f\x10\xda\xbe"sv},
    {"a VHDX image", "vhdx", 0, "vhdxfile"sv},
    {"a VHD image", "vpc", 0, "conectix"sv},
    {"a VHD image", "vpc", kFooterBytes, "conectix"sv, true},
    // Old versions of Virtual PC wrote a shorter footer.
    {"a VHD image", "vpc", kFooterBytes - 1, "conectix"sv, true},
    {"a QED image", "qed", 0, "QED\0"sv},
    {"a Parallels image", "parallels", 0, "WithoutFreeSpace"sv},
    {"a Parallels image", "parallels", 0, "WithouFreSpacExt"sv},
    {"a DMG image", "dmg", kFooterBytes, "koly"sv, true},
    {"a Bochs image", "bochs", 0, "Bochs Virtual HD Image"sv},
    {"a cloop image", "cloop", 0, "#!/bin/sh\n#V2.0 Format\n"sv},
    // QEMU has no drivers for the formats of CDs and DVDs, and reads them as raw disks.
    {"an ISO 9660 image (of a CD or DVD)", "raw", 32769, "CD001"sv},
    {"a UDF image (of a CD or DVD)", "raw", 32769, "BEA01"sv},
    {"an encrypted disk (LUKS)", "", 0, "LUKS\xba\xbe"sv, false, Remedy::kDecrypt},
    {"an Android sparse image", "", 0, "\x3a\xff\x26\xed"sv, false, Remedy::kExpand},
}};

constexpr Signature kTar = {"a tar archive, such as an OVA or an exported snapshot",
                            "",
                            257,
                            "ustar"sv,
                            false,
                            Remedy::kUnpackTar};
constexpr std::size_t kTarRecordBytes = 512;

// A Packing describes a format of compressed files by its magic number.
struct Packing {
  std::uint64_t offset = 0;
  std::string_view magic;
  std::string_view command;  // Writes the content of the file that it is given to standard output.
};

constexpr std::array<Packing, 12> kPackings = {{{0, "\x1f\x8b\x08"sv, "gzip -dc"},
                                                {0, "\x1f\x9d\x90"sv, "gzip -dc"},
                                                {0, "\xfd\x37zXZ\0"sv, "xz -dc"},
                                                {0, "\x28\xb5\x2f\xfd"sv, "zstd -dc"},
                                                {4, "1AY&SY"sv, "bzip2 -dc"},
                                                {0, "PK\x03\x04"sv, "unzip -p"},
                                                {0, "\x04\x22\x4d\x18"sv, "lz4 -dc"},
                                                {0, "\x02\x21\x4c\x18"sv, "lz4 -dc"},
                                                {0, "7z\xbc\xaf\x27\x1c"sv, "7z x -so"},
                                                {0, "Rar!\x1a\x07"sv, "unrar p -inul"},
                                                {0, "LZIP\x01"sv, "lzip -dc"},
                                                {0, "\x89LZO\0\r\n\x1a\n"sv, "lzop -dc"}}};

// A zstd file may begin with a skippable frame, whose first byte is one of 16 values.
constexpr std::string_view kSkippableMagic = "\x2a\x4d\x18";
constexpr unsigned kSkippableFirstByte = 0x50;
constexpr unsigned kSkippableMask = 0xf0;

// Describes a file system by the magic number in its superblock.
struct FileSystem {
  std::string_view name;
  std::uint64_t offset = 0;
  std::string_view magic;
};

constexpr std::array<FileSystem, 5> kFileSystems = {{{"ext4", 1080, "\x53\xef"sv},
                                                     {"xfs", 0, "XFSB"sv},
                                                     {"btrfs", 65600, "_BHRfS_M"sv},
                                                     {"erofs", 1024, "\xe2\xe1\xf5\xe0"sv},
                                                     {"squashfs", 0, "hsqs"sv}}};

// The boot signature of a partitioned disk.
constexpr std::uint64_t kBootSignatureOffset = 510;
constexpr std::string_view kBootSignature = "\x55\xaa";

std::uint64_t NumberAt(std::string_view bytes, std::size_t offset, std::size_t length) {
  return base::LoadBigEndian(std::as_bytes(std::span(bytes.substr(offset, length))));
}

// Returns true if the file has these bytes at offset.
bool HasMagic(int fd, std::uint64_t offset, std::string_view magic) {
  if (base::StampOf(fd).size < offset + magic.size()) return false;
  std::string found(magic.size(), '\0');
  base::ReadExactly(fd, found.data(), found.size(), offset);
  return found == magic;
}

// Returns true if a file that begins with start has these bytes at offset.
bool StartHas(std::string_view start, std::uint64_t offset, std::string_view magic) {
  return start.size() >= offset && start.substr(offset).starts_with(magic);
}

// Returns true if start begins with a tar header of any format: the oldest has only a checksum, the
// sum of the bytes of the header with spaces in place of the checksum.
bool HasTarChecksum(std::string_view start) {
  constexpr std::size_t kChecksum = 148;
  constexpr std::size_t kChecksumBytes = 8;
  if (start.size() < kTarRecordBytes) return false;
  std::string header(start.substr(0, kTarRecordBytes));
  std::string recorded = header.substr(kChecksum, kChecksumBytes);
  recorded.erase(0, recorded.find_first_not_of(' '));
  header.replace(kChecksum, kChecksumBytes, kChecksumBytes, ' ');
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  unsigned value = 0;
  std::from_chars(recorded.data(), recorded.data() + recorded.size(), value, 8);
  return value == sum;
}

class Prober {
 public:
  Prober(const Context& ctx, int fd, const std::filesystem::path& path)
      : ctx_(ctx), fd_(fd), path_(path), size_(base::StampOf(fd).size) {}

  DiskFormat Run() const {
    if (size_ == 0) RefuseEmpty();
    if (Bytes(0, kQcowMagic.size()) == kQcowMagic) {
      CheckQcow2();
      return DiskFormat::kQcow2;
    }
    for (const Signature& signature : kSignatures) {
      if (Has(signature)) RefuseFormat(signature);
    }
    const std::string start = Bytes(0, std::min<std::uint64_t>(size_, kTarRecordBytes));
    if (IsTarStart(start)) RefuseFormat(kTar);
    const auto unpack = UnpackCommandFor(start);
    if (unpack) RefusePacked(*unpack);
    if (const auto problem = ProblemOfRawSize(size_)) RefuseSize(*problem);
    return DiskFormat::kRaw;
  }

 private:
  // Returns length bytes at offset, or an empty string if the file does not have all of them.
  std::string Bytes(std::uint64_t offset, std::uint64_t length) const {
    if (offset > size_ || size_ - offset < length) return {};
    std::string bytes(length, '\0');
    base::ReadExactly(fd_, bytes.data(), bytes.size(), offset);
    return bytes;
  }

  bool Has(const Signature& signature) const {
    if (signature.from_end && size_ < signature.offset) return false;
    const std::uint64_t offset = signature.from_end ? size_ - signature.offset : signature.offset;
    return Bytes(offset, signature.magic.size()) == signature.magic;
  }

  void CheckQcow2() const {
    const std::string start = Bytes(0, 20);
    if (!start.empty() && NumberAt(start, 4, 4) == 1) {
      Refuse("is a QCOW image of version 1", "qcow");
    }
    const Qcow2Header header = ReadQcow2Header(fd_, path_.native());
    if (!header.backing_file.empty()) {
      Refuse(fmt::format("is backed by '{}', but an image must be a single file",
                         Quoted(header.backing_file)),
             "qcow2");
    }
    if (header.bitmaps) Refuse("has persistent bitmaps, which are not supported", "qcow2");
    if (header.virtual_size == 0) RefuseEmpty();
    const Qcow2Tables checked(ctx_, fd_, path_.native(), header);
  }

  [[noreturn]] void RefuseEmpty() const {
    Throw(ErrorKind::kInvalidArgument,
          "image {} is empty: give a raw or qcow2 disk image; to create a blank one, run qemu-img "
          "create -f qcow2 {} 8G",
          path_.native(), InShell(Beside(path_, "-blank.qcow2").native()));
  }

  [[noreturn]] void Refuse(const std::string& why, std::string_view driver) const {
    Throw(ErrorKind::kUnsupportedOperation, "image {} {}: to convert it, run {}", path_.native(),
          why, ConvertCommand(path_, driver));
  }

  [[noreturn]] void RefuseFormat(const Signature& signature) const {
    const std::string why = fmt::format("is {}", signature.name);
    if (signature.remedy == Remedy::kConvert) Refuse(why, signature.driver);
    Throw(ErrorKind::kUnsupportedOperation, "image {} {}: {}", path_.native(), why,
          StepFor(signature.remedy));
  }

  std::string StepFor(Remedy remedy) const {
    const std::string source = InShell(path_.native());
    switch (remedy) {
      case Remedy::kConvert:
        break;
      case Remedy::kDecrypt: {
        // QEMU reads only version 1.
        const std::string version = Bytes(6, 2);
        const bool is_first = !version.empty() && NumberAt(version, 0, 2) == 1;
        return "to decrypt it, run " +
               (is_first ? DecryptCommand(path_, "luks") : CryptsetupCommand(path_));
      }
      case Remedy::kExpand: {
        const std::string target = InShell(Unpacked().native());
        return fmt::format("to convert it, run simg2img {} {}, and give that file", source, target);
      }
      case Remedy::kUnpackTar:
        return fmt::format(
            "import an exported snapshot with Snapshot::Import; unpack any other archive (tar -xf "
            "{}), and give the disk image that it contains",
            source);
    }
    return {};
  }

  [[noreturn]] void RefusePacked(std::string_view command) const {
    Throw(ErrorKind::kUnsupportedOperation,
          "image {} is compressed: to unpack it, run {} {} > {}, and give that file; import "
          "an exported snapshot with Snapshot::Import",
          path_.native(), command, InShell(path_.native()), InShell(Unpacked().native()));
  }

  [[noreturn]] void RefuseSize(const std::string& problem) const {
    Throw(ErrorKind::kInvalidArgument,
          "image {} is not a disk image, or is truncated: {}; give a complete raw or qcow2 disk "
          "image, or, if it lacks only padding, run truncate -s %512 {}",
          path_.native(), problem, InShell(path_.native()));
  }

  std::filesystem::path Unpacked() const { return Beside(path_, "-unpacked.img"); }

  const Context& ctx_;
  const int fd_;
  const std::filesystem::path& path_;
  const std::uint64_t size_;
};

}  // namespace

std::optional<std::string_view> UnpackCommandFor(std::string_view start) {
  for (const Packing& packing : kPackings) {
    if (StartHas(start, packing.offset, packing.magic)) return packing.command;
  }
  const bool is_skippable =
      StartHas(start, 1, kSkippableMagic) &&
      (static_cast<unsigned char>(start[0]) & kSkippableMask) == kSkippableFirstByte;
  if (is_skippable) return "zstd -dc";
  return std::nullopt;
}

bool IsTarStart(std::string_view start) {
  return StartHas(start, kTar.offset, kTar.magic) || HasTarChecksum(start);
}

std::optional<std::string> DescribeDiskImage(std::string_view start) {
  if (start.starts_with(kQcowMagic)) return "a qcow2 image";
  for (const Signature& signature : kSignatures) {
    if (!signature.from_end && StartHas(start, signature.offset, signature.magic)) {
      return std::string(signature.name);
    }
  }
  for (const FileSystem& type : kFileSystems) {
    if (StartHas(start, type.offset, type.magic)) {
      return fmt::format("a raw disk image with the file system {}", type.name);
    }
  }
  if (StartHas(start, kBootSignatureOffset, kBootSignature)) return "a raw disk image";
  return std::nullopt;
}

std::optional<std::string> ProblemOfRawSize(std::uint64_t size) {
  if (size == 0) return "it is empty";
  if (size % kSectorBytes == 0) return std::nullopt;
  return fmt::format("its size, {}, is not a multiple of {}", base::Count(size, "byte"),
                     kSectorBytes);
}

DiskFormat ProbeImage(const Context& ctx, int fd, const std::filesystem::path& path) {
  return Prober(ctx, fd, path).Run();
}

std::string ProbeFileSystem(int fd) {
  for (const FileSystem& type : kFileSystems) {
    if (HasMagic(fd, type.offset, type.magic)) return std::string(type.name);
  }
  return "unknown";
}

DiskFormat ProbeFormat(int fd) {
  return HasMagic(fd, 0, kQcowMagic) ? DiskFormat::kQcow2 : DiskFormat::kRaw;
}

}  // namespace msb::disk
