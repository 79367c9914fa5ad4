// SPDX-License-Identifier: Apache-2.0
//
// The example snapshot_fork of the microsandbox Go SDK: prepare a sandbox once, snapshot it, and
// boot several workers from the snapshot, each with a disk of its own.
//
//   snapshot_fork                     in a temporary home, on the local backend
//   snapshot_fork IMAGE [WORKERS]     default: 3 workers
//
// With an IMAGE, MSB_HOME and MSB_BACKEND select the home and the backend. For qemu, also:
//   MSB_KERNEL, MSB_INITRD, MSB_APPEND   a kernel to boot directly

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
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

void Fork(const std::string& image, int workers, const msb::Client& client) {
  const auto ctx = msb::Context::Background().WithTimeout(std::chrono::minutes(10));

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
    running.push_back(msb::CreateSandbox(
        ctx, "fork-worker-" + std::to_string(i),
        {msb::WithSnapshot(name), msb::WithLabel("fork", name), msb::WithReplace()}, client));
    const auto upper = msb::GetSandbox(ctx, running.back().Name(), client).Upper();
    std::cout << running.back().Name() << " runs on a " << msb::ToString(upper.format)
              << " disk made from " << upper.base_digest << "\n";
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
      Fork(argv[1], workers, msb::Client(ConfigFromEnvironment()));
    } else {
      const example::TemporaryHome home;
      Fork(home.MakeImage(), workers, msb::Client({.home = home.Path(), .backend = "local"}));
    }
    return 0;
  } catch (const msb::Error& e) {
    std::cerr << "snapshot_fork: " << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "snapshot_fork: " << e.what() << "\n";
  }
  return 1;
}
