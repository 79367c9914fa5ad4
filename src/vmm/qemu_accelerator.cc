// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_accelerator.h"

#include <fmt/core.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <string_view>
#include <system_error>

#include "src/base/file.h"
#include "src/base/process.h"
#include "src/base/spawn.h"
#include "src/base/staging.h"
#include "src/base/throw.h"
#include "src/vmm/qemu_probe_guest.h"

namespace msb::vmm {
namespace {

constexpr const char* kCacheFile = "qemu-accelerator";
constexpr std::string_view kKvm = "kvm";
constexpr std::string_view kTcg = "tcg";
// A hundred times as long as the guest takes where KVM works.
constexpr std::chrono::seconds kPatience(4);
constexpr std::size_t kMaxCacheBytes = 8192;
constexpr std::size_t kMaxOutputBytes = 1 << 20;

// Returns everything that the answer depends on, as the text that precedes the answer in the cache.
// Returns an empty string if the boot of the machine cannot be identified.
std::string CacheKey(const std::filesystem::path& binary, const base::FileStamp& stamp) {
  const std::string boot = base::BootId();
  if (boot.empty()) return {};
  return fmt::format("boot {}\nbinary {}\nsize {}\nmtime_ns {}\naccelerator ", boot,
                     binary.native(), stamp.size, stamp.mtime_ns);
}

std::optional<std::string> Recall(const std::filesystem::path& cache_dir, const std::string& key) {
  try {
    const base::UniqueFd dir = base::TryOpenDirectory(cache_dir);
    if (!dir) return std::nullopt;
    const base::Entry entry = base::OpenEntryAt(dir.get(), kCacheFile);
    if (entry.type != base::EntryType::kRegularFile) return std::nullopt;
    const auto content = base::ReadAll(entry.fd.get(), kMaxCacheBytes);
    for (const std::string_view answer : {kKvm, kTcg}) {
      if (content == fmt::format("{}{}\n", key, answer)) return std::string(answer);
    }
  } catch (const Error&) {
    // A cache that cannot be read counts as absent.
  }
  return std::nullopt;
}

void Remember(const std::filesystem::path& cache_dir, const std::string& key,
              std::string_view answer) {
  try {
    base::MakeDirectory(cache_dir);
    base::ReplaceFileInStage(cache_dir, kCacheFile, fmt::format("{}{}\n", key, answer), 0644);
  } catch (const Error&) {
    // The next call probes again.
  }
}

// Returns whether the guest runs to its end. The guest's output decides that, and not QEMU's exit
// status, which may go to other code in this process that waits for children.
bool GuestRuns(const Context& ctx, const std::filesystem::path& binary, const std::string& guest) {
  const base::UniqueFd firmware = base::MakeMemoryFile();
  base::WriteExactly(firmware.get(), guest.data(), guest.size(), 0);
  const base::UniqueFd output = base::MakeMemoryFile();
  const base::Leash leash;
  const base::Program program = {
      .path = binary,
      .arguments = {"-accel", "kvm", "-machine", "pc", "-nodefaults", "-no-user-config", "-display",
                    "none", "-no-reboot", "-bios", fmt::format("/proc/self/fd/{}", firmware.get()),
                    "-debugcon", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"},
      .directory = "/",
      .output = output.get(),
      .inherited = {firmware.get()}};
  const base::ProcessIdentity identity = base::Spawn(program, leash);
  const auto process = base::ProcessHandle::Open(identity);
  if (process) {
    const bool ended = process->AwaitEnd(ctx.WithTimeout(kPatience));
    if (!ended) {
      process->Kill();
      process->AwaitEnd(Context::Background().WithTimeout(kPatience));
    }
    process->Reap();
    if (!ended) {
      ctx.Check();
      return false;
    }
  }
  const auto written = base::ReadAll(output.get(), kMaxOutputBytes);
  return written && written->find(kProbeGuestMessage) != std::string::npos;
}

}  // namespace

std::string ChooseAccelerator(const Context& ctx, const std::filesystem::path& binary,
                              const std::filesystem::path& cache_dir,
                              const std::filesystem::path& device) {
  ctx.Check();
  const std::string guest = ProbeGuest();
  if (guest.empty() || !base::MayReadAndWrite(device)) return std::string(kTcg);
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(binary, error);
  if (error) base::ThrowCannotExecute(binary.native(), error.value());
  const auto stamp = base::StampOf(path);
  if (!stamp) base::ThrowCannotExecute(binary.native(), EACCES);  // As execve(2) does.
  const std::string key = CacheKey(path, *stamp);
  if (!key.empty()) {
    if (auto answer = Recall(cache_dir, key)) return *std::move(answer);
  }
  const std::string_view answer = GuestRuns(ctx, path, guest) ? kKvm : kTcg;
  if (!key.empty()) Remember(cache_dir, key, answer);
  return std::string(answer);
}

}  // namespace msb::vmm
