// The example snapshot_fork of the microsandbox Go SDK: prepare a sandbox once, snapshot it, and
// boot several workers from the snapshot, each with a disk of its own.
//
//   snapshot_fork IMAGE [WORKERS]
//
// MSB_HOME and MSB_BACKEND select the home and the backend, as for every program. For qemu, also:
//   MSB_KERNEL, MSB_INITRD, MSB_APPEND   a kernel to boot directly

#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "msb/msb.h"

namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void Fork(const std::string& image, int workers) {
  const auto ctx = msb::Context::Background().WithTimeout(std::chrono::minutes(10));
  msb::Config config = msb::Config::FromEnvironment();
  config.qemu.kernel = Environment("MSB_KERNEL");
  config.qemu.initrd = Environment("MSB_INITRD");
  config.qemu.append = Environment("MSB_APPEND");
  msb::Client client(config);

  // 1. Prepare: install here what the workers need, then stop. Only a stopped sandbox can be
  //    snapshotted.
  auto baseline =
      msb::CreateSandbox(ctx, "fork-baseline", {msb::WithImage(image), msb::WithReplace()}, client);
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
    const auto started = std::chrono::steady_clock::now();
    running.push_back(msb::CreateSandbox(
        ctx, "fork-worker-" + std::to_string(i),
        {msb::WithSnapshot(name), msb::WithLabel("fork", name), msb::WithReplace()}, client));
    const std::chrono::duration<double, std::milli> took =
        std::chrono::steady_clock::now() - started;
    const auto upper = msb::GetSandbox(ctx, running.back().Name(), client).Upper();
    std::cout << running.back().Name() << " in " << took.count() << " ms, disk " << upper.path
              << " (" << msb::ToString(upper.format) << ") on " << upper.base_digest << "\n";
  }

  // 4. Each worker is stopped when it goes out of scope. Here they are ended at once, without
  //    waiting for their guests.
  for (msb::Sandbox& worker : running) worker.Kill(ctx);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: snapshot_fork IMAGE [WORKERS]\n";
    return 2;
  }
  try {
    Fork(argv[1], argc > 2 ? std::stoi(argv[2]) : 3);
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "snapshot_fork: " << e.what() << "\n";
    return 1;
  }
}
