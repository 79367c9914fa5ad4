// SPDX-License-Identifier: Apache-2.0
//
// Prepares a sandbox once, snapshots it, and boots two workers from the snapshot, with any VMM that
// is started by a command line.
//
//   command_backend      in a temporary home, with sleep(1) in place of a VMM
//   command_backend HOME IMAGE VMM [ARGUMENT...]
//   command_backend home base.img qemu-system-x86_64 -nodefaults -display none -m '{memory}M'
//       -smp '{cpus}' -blockdev '{blockdev}' -device virtio-blk-pci,drive=disk
//   MSB_UP=api.sock command_backend home base.img my-vmm --disk '{disk}' --api '{dir}/api.sock'
//
// MSB_UP names a file in {dir} that exists once the VMM has booted. A VMM that ends before that has
// failed to boot. With {blockdev} the disks are qcow2, so that neither a snapshot nor a boot copies
// a disk. Otherwise they are raw files, which every VMM supports; {disk} is their path.

#include "command_backend.h"

#include <chrono>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "msb/msb.h"
#include "temporary_home.h"

namespace {

void Run(const std::string& home, const std::string& image, std::vector<std::string> command) {
  bool chains = false;
  for (const std::string& word : command) {
    chains = chains || word.find("{blockdev}") != std::string::npos;
  }
  std::function<bool(const msb::vmm::SandboxRecord&)> is_up;
  if (const char* file = std::getenv("MSB_UP"); file != nullptr) {
    is_up = [file](const msb::vmm::SandboxRecord& sandbox) {
      return std::filesystem::exists(sandbox.upper->path.parent_path() / file);
    };
  }
  // The config is used twice: with the local backend, which keeps disks and records, and with ours.
  msb::Config config{.home = home, .backend = "local"};
  config.sandboxes_dir = home + "/command-sandboxes";  // Where no other backend looks for its own.
  config.upper_format = chains ? msb::DiskFormat::kQcow2 : msb::DiskFormat::kRaw;
  config.backend = std::make_shared<example::CommandBackend>(msb::Client(config).backend(),
                                                             std::move(command), is_up);
  msb::Client client(config);

  const auto ctx = msb::Context::Background().WithTimeout(std::chrono::minutes(5));
  const std::string name =
      "s-" + std::to_string(std::chrono::system_clock::now().time_since_epoch().count());
  auto baseline =
      msb::CreateSandbox(ctx, "baseline", {msb::WithImage(image), msb::WithReplace()}, client);
  std::cout << "baseline runs\n";
  baseline.Stop(ctx);
  const auto snapshot = msb::Snapshot::Create(ctx, "baseline", {.name = name}, client);
  std::cout << "snapshot " << snapshot.Digest() << ", " << snapshot.SizeBytes() << " bytes\n";
  for (const std::string worker : {"worker-1", "worker-2"}) {
    const auto sandbox =
        msb::CreateSandbox(ctx, worker, {msb::WithSnapshot(name), msb::WithReplace()}, client);
    std::cout << worker << " runs on " << msb::GetSandbox(ctx, worker, client).Upper().path << "\n";
  }  // The worker goes out of scope and is stopped.
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 1 && argc < 4) {
    std::cerr << "usage: command_backend [HOME IMAGE VMM [ARGUMENT...]]\n";
    return 2;
  }
  try {
    if (argc == 1) {
      const example::TemporaryHome home;
      Run(home.Path(), home.MakeImage(), {"sleep", "infinity"});
    } else {
      Run(argv[1], argv[2], {argv + 3, argv + argc});
    }
    return 0;
  } catch (const msb::Error& e) {
    std::cerr << "command_backend: " << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "command_backend: " << e.what() << "\n";
  }
  return 1;
}
