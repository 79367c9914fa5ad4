// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_machine.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "src/base/regular_file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_image.h"
#include "src/disk/image_probe.h"

namespace msb::vmm {
namespace {

using base::Quoted;
using base::Throw;

constexpr std::uint32_t kDefaultMemoryMib = 512;
constexpr std::uint32_t kDefaultCpus = 1;
constexpr std::uint64_t kBootSectorBytes = 512;

void CheckText(std::string_view field, const std::string& text) {
  if (text.find('\0') != std::string::npos) {
    Throw(ErrorKind::kInvalidArgument, "QemuConfig::{} '{}' contains a NUL byte", field,
          Quoted(text));
  }
  if (!base::IsUtf8(text)) {
    Throw(ErrorKind::kInvalidArgument, "QemuConfig::{} '{}' is not UTF-8", field, Quoted(text));
  }
}

std::filesystem::path Absolute(std::string_view field, const std::filesystem::path& path) {
  if (path.empty()) return path;
  CheckText(field, path.native());
  return base::AbsolutePath(path.native());
}

void CheckFileExists(const std::string& sandbox, std::string_view field,
                     const std::filesystem::path& path) {
  std::error_code error;
  if (path.empty() || std::filesystem::exists(path, error)) return;
  Throw(
      ErrorKind::kInvalidConfig,
      "the {} of sandbox '{}', {}, is absent: restore the file, or set Config::qemu.{} to another",
      field, sandbox, Quoted(path.native()), field);
}

// Returns "image 'base.img' of sandbox 'a'", for messages.
std::string DiskOf(const std::string& name, const SandboxRecord& sandbox) {
  return fmt::format("image '{}' of sandbox '{}'", sandbox.image ? Quoted(sandbox.image->ref) : "",
                     name);
}

base::UniqueFd OpenFile(int dir, const std::string& name) {
  return base::RequireRegularFile(base::OpenEntryAt(dir, name), base::PathOf(dir, name),
                                  ErrorKind::kIO);
}

// Returns the files of the disk, the upper first.
std::vector<disk::ImageFile> FilesOf(int dir, const SandboxRecord& sandbox) {
  std::vector<disk::ImageFile> files;
  const std::string upper = sandbox.upper->path.filename();
  files.push_back({OpenFile(dir, upper), sandbox.upper->format, upper});
  for (const BackingFile& file : sandbox.backing) {
    files.push_back({OpenFile(dir, file.name), file.disk.format, file.name});
  }
  return files;
}

// Returns whether the guest's disk begins with a boot sector. Also returns true for a disk that
// this library cannot read but QEMU may.
bool MayBoot(const Context& ctx, std::vector<disk::ImageFile> files) {
  try {
    const auto image = disk::OpenImage(ctx, std::move(files));
    if (image->size() < kBootSectorBytes) return false;
    std::array<std::byte, kBootSectorBytes> sector{};
    image->Read(sector, 0);
    return sector[510] == std::byte{0x55} && sector[511] == std::byte{0xaa};
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kUnsupportedOperation && e.kind() != ErrorKind::kSnapshotIntegrity) {
      throw;
    }
    return true;
  }
}

}  // namespace

QemuConfig RecordableMachine(const QemuConfig& machine) {
  CheckText("append", machine.append);
  for (const std::string& argument : machine.extra_arguments) {
    CheckText("extra_arguments", argument);
  }
  return {.kernel = Absolute("kernel", machine.kernel),
          .initrd = Absolute("initrd", machine.initrd),
          .append = machine.append,
          .memory_mib = machine.memory_mib,
          .cpus = machine.cpus,
          .extra_arguments = machine.extra_arguments};
}

QemuConfig MachineOf(const DirectoryRecord& record, const QemuConfig& client) {
  QemuConfig own = record.machine;
  if (record.memory_mib != 0) own.memory_mib = record.memory_mib;
  if (record.cpus != 0) own.cpus = record.cpus;
  QemuConfig machine{.binary = client.binary};
  for (const QemuConfig& settings : {own, client, record.machine_defaults}) {
    if (machine.kernel.empty()) machine.kernel = settings.kernel;
    if (machine.initrd.empty()) machine.initrd = settings.initrd;
    if (machine.append.empty()) machine.append = settings.append;
    if (machine.memory_mib == 0) machine.memory_mib = settings.memory_mib;
    if (machine.cpus == 0) machine.cpus = settings.cpus;
    if (machine.extra_arguments.empty()) machine.extra_arguments = settings.extra_arguments;
  }
  if (machine.memory_mib == 0) machine.memory_mib = kDefaultMemoryMib;
  if (machine.cpus == 0) machine.cpus = kDefaultCpus;
  return machine;
}

void CheckBootable(const Context& ctx, int dir, const std::string& name,
                   const SandboxRecord& sandbox, const QemuConfig& machine) {
  CheckFileExists(name, "kernel", machine.kernel);
  CheckFileExists(name, "initrd", machine.initrd);
  std::vector<disk::ImageFile> files = FilesOf(dir, sandbox);
  for (const disk::ImageFile& file : files) {
    if (file.format != DiskFormat::kRaw) continue;
    const auto problem = disk::ProblemOfRawSize(base::StampOf(file.fd.get()).size);
    if (!problem) continue;
    Throw(ErrorKind::kInvalidConfig,
          "{} is not a disk image: {}; create the sandbox from a complete raw or qcow2 disk image",
          DiskOf(name, sandbox), *problem);
  }
  if (!machine.kernel.empty() || !machine.extra_arguments.empty() ||
      MayBoot(ctx, std::move(files))) {
    return;
  }
  Throw(ErrorKind::kInvalidConfig,
        "{} has nothing to boot: there is no boot signature in the first sector of its disk, and "
        "no kernel is set; set QemuConfig::kernel, or use a bootable disk",
        DiskOf(name, sandbox));
}

}  // namespace msb::vmm
