// SPDX-License-Identifier: Apache-2.0
//
// The example snapshot_fork of the microsandbox Go SDK: write a file in a sandbox, snapshot it,
// boot several workers from the snapshot, each with a disk of its own, and read the file in each.
//
//   snapshot_fork                     in a temporary home, on the local backend, without guests
//   snapshot_fork IMAGE [WORKERS]     default: 3 workers
//
// With an IMAGE, MSB_HOME and MSB_BACKEND select the home and the backend. On qemu, the guest needs
// a guest agent (docs/qemu.md), and these variables have an effect:
//   MSB_KERNEL, MSB_INITRD, MSB_APPEND   a kernel to boot directly
//   MSB_DIRECTORY                        a directory on the disk of the guest; default: /root

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "msb/msb.h"
#include "temporary_home.h"

namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

msb::Config ConfigFromEnvironment() {
  msb::Config config = msb::Config::FromEnvironment();
  config.qemu.kernel = Environment("MSB_KERNEL");
  config.qemu.initrd = Environment("MSB_INITRD");
  config.qemu.append = Environment("MSB_APPEND");
  return config;
}

// Runs a command of the guest's shell, and returns its output.
std::string Run(const msb::Context& ctx, const msb::Sandbox& sandbox, const std::string& command) {
  const msb::ExecResult result = sandbox.Exec(ctx, {"sh", "-c", command});
  if (result.exit_code != 0) throw std::runtime_error(command + ": " + result.err);
  return result.out;
}

void Fork(const std::string& image, int workers, const msb::Client& client, bool has_guests) {
  const auto ctx = msb::Context::Background().WithTimeout(std::chrono::minutes(10));
  const std::string directory = Environment("MSB_DIRECTORY");
  const std::string file = (directory.empty() ? "/root" : directory) + "/prepared";

  // 1. Prepare: install here what the workers need, then stop.
  auto baseline =
      msb::CreateSandbox(ctx, "fork-baseline", {msb::WithImage(image), msb::WithReplace()}, client);
  if (has_guests) Run(ctx, baseline, "echo 'prepared once' >" + file);
  baseline.Stop(ctx);
  baseline.Close();

  // 2. Snapshot.
  const std::string name =
      "fork-" + std::to_string(std::chrono::system_clock::now().time_since_epoch().count());
  const auto snapshot = msb::GetSandbox(ctx, "fork-baseline", client).Snapshot(ctx, name);
  std::cout << "snapshot " << name << " " << snapshot.Digest() << "\n";

  // 3. Fork: the workers run at the same time, each on a disk of its own.
  std::vector<msb::Sandbox> running;
  for (int i = 1; i <= workers; ++i) {
    running.push_back(msb::CreateSandbox(
        ctx, "fork-worker-" + std::to_string(i),
        {msb::WithSnapshot(name), msb::WithLabel("fork", name), msb::WithReplace()}, client));
    const auto upper = msb::GetSandbox(ctx, running.back().Name(), client).Upper();
    std::cout << running.back().Name() << " runs on a " << msb::ToString(upper.format)
              << " disk made from " << upper.base_digest << "\n";
    if (!has_guests) continue;
    std::cout << running.back().Name() << " reads: " << Run(ctx, running.back(), "cat " + file);
  }

  // 4. Workers that go out of scope are stopped. These are ended without waiting for their guests.
  for (msb::Sandbox& worker : running) worker.Kill(ctx);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string count = argc > 2 ? argv[2] : "3";
  int workers = 0;
  const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), workers);
  if (argc > 3 || error != std::errc() || *end != '\0' || workers < 1 ||
      (argc > 1 && argv[1][0] == '-')) {
    std::cerr << "usage: snapshot_fork [IMAGE [WORKERS]]\n";
    return 2;
  }
  try {
    if (argc > 1) {
      const std::string backend = Environment("MSB_BACKEND");
      Fork(argv[1], workers, msb::Client(ConfigFromEnvironment()),
           backend == "qemu" || backend == "microsandbox");
    } else {
      const example::TemporaryHome home;
      Fork(home.MakeImage(), workers, msb::Client({.home = home.Path(), .backend = "local"}),
           /*has_guests=*/false);
    }
    return 0;
  } catch (const msb::Error& e) {
    std::cerr << "snapshot_fork: " << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "snapshot_fork: " << e.what() << "\n";
  }
  return 1;
}
