// SPDX-License-Identifier: Apache-2.0

#include "src/disk/image_probe.h"

#include <fmt/format.h>

#include <array>
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
#include "src/disk/qcow2_tables.h"

namespace msb::disk {
namespace {

using base::Quoted;
using base::Throw;
using namespace std::string_view_literals;

constexpr std::string_view kQcowMagic = "QFI\xfb";
constexpr std::uint64_t kFooterBytes = 512;  // VHD and DMG have their magic at the end.

// Describes an unsupported format by its magic number.
struct Signature {
  std::string_view name;    // Used in messages.
  std::string_view driver;  // The name of the format in qemu-img.
  std::uint64_t offset = 0;
  std::string_view magic;
  bool from_end = false;  // offset counts back from the end of the file.
};

constexpr std::array<Signature, 12> kSignatures = {{
    {"a VMDK image", "vmdk", 0, "KDMV"sv},
    {"a VMDK image", "vmdk", 0, "COWD"sv},
    {"a VMDK descriptor", "vmdk", 0, "# Disk DescriptorFile"sv},
    {"a VDI image", "vdi", 64, "\x7f\x10\xda\xbe"sv},
    {"a VHDX image", "vhdx", 0, "vhdxfile"sv},
    {"a VHD image", "vpc", 0, "conectix"sv},
    {"a VHD image", "vpc", kFooterBytes, "conectix"sv, true},
    {"a QED image", "qed", 0, "QED\0"sv},
    {"a Parallels image", "parallels", 0, "WithoutFreeSpace"sv},
    {"a Parallels image", "parallels", 0, "WithouFreSpacExt"sv},
    {"a DMG image", "dmg", kFooterBytes, "koly"sv, true},
    // QEMU has no driver for ISO 9660 and reads it as a raw disk.
    {"an ISO 9660 image (of a CD or DVD)", "raw", 32769, "CD001"sv},
}};

// A Packing describes a format of compressed files by its magic number.
struct Packing {
  std::uint64_t offset = 0;
  std::string_view magic;
  std::string_view command;  // Writes the content of the file that it is given to standard output.
};

constexpr std::array<Packing, 5> kPackings = {{{0, "\x1f\x8b\x08"sv, "gzip -dc"},
                                               {0, "\xfd\x37zXZ\0"sv, "xz -dc"},
                                               {0, "\x28\xb5\x2f\xfd"sv, "zstd -dc"},
                                               {4, "1AY&SY"sv, "bzip2 -dc"},
                                               {0, "PK\x03\x04"sv, "unzip -p"}}};

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
      if (Has(signature)) Refuse(fmt::format("is {}", signature.name), signature.driver);
    }
    const auto unpack = UnpackCommandFor(Bytes(0, std::min<std::uint64_t>(size_, kPackingBytes)));
    if (unpack) RefusePacked(*unpack);
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

  [[noreturn]] void RefusePacked(std::string_view command) const {
    const std::string target = InShell(Beside(path_, "-unpacked.img").native());
    Throw(ErrorKind::kUnsupportedOperation,
          "image {} is compressed: to unpack it, run {} {} > {}, and give that file",
          path_.native(), command, InShell(path_.native()), target);
  }

  const Context& ctx_;
  const int fd_;
  const std::filesystem::path& path_;
  const std::uint64_t size_;
};

}  // namespace

std::optional<std::string_view> UnpackCommandFor(std::string_view start) {
  for (const Packing& packing : kPackings) {
    const bool is_long_enough = start.size() >= packing.offset + packing.magic.size();
    if (is_long_enough && start.substr(packing.offset).starts_with(packing.magic)) {
      return packing.command;
    }
  }
  return std::nullopt;
}

DiskFormat ProbeImage(const Context& ctx, int fd, const std::filesystem::path& path) {
  return Prober(ctx, fd, path).Run();
}

std::string ProbeFileSystem(int fd) {
  if (HasMagic(fd, 1080, "\x53\xef"sv)) return "ext4";
  if (HasMagic(fd, 0, "XFSB"sv)) return "xfs";
  if (HasMagic(fd, 65600, "_BHRfS_M"sv)) return "btrfs";
  if (HasMagic(fd, 1024, "\xe2\xe1\xf5\xe0"sv)) return "erofs";
  if (HasMagic(fd, 0, "hsqs"sv)) return "squashfs";
  return "unknown";
}

DiskFormat ProbeFormat(int fd) {
  return HasMagic(fd, 0, kQcowMagic) ? DiskFormat::kQcow2 : DiskFormat::kRaw;
}

}  // namespace msb::disk
