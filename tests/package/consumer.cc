// SPDX-License-Identifier: Apache-2.0
//
// Uses msb as its users do: CONSUMER DIR.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <tuple>

#include "msb/msb.h"

int main(int, char** argv) {
  const std::filesystem::path dir = argv[1];
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  std::ofstream(dir / "base.img") << "a disk";
  std::filesystem::resize_file(dir / "base.img", 1 << 20);
  const auto ctx = msb::Context::Background();
  msb::Client client({.home = dir / "home", .backend = "local"});
  msb::Client other({.home = dir / "other", .backend = "local"});
  try {
    msb::CreateSandbox(ctx, "s", {msb::WithImage(dir / "base.img")}, client).Stop(ctx);
    msb::Snapshot::Create(ctx, "s", {.name = "a"}, client);
    msb::Snapshot::Export(ctx, "a", dir / "a.tar.zst", {}, client);
    msb::Snapshot::Import(ctx, dir / "a.tar.zst", "", other);
    if (msb::Version() != MSB_VERSION_STRING) return 1;
    std::printf("msb %s: %zu snapshots\n", MSB_VERSION_STRING,
                msb::Snapshot::List(ctx, other).size());
  } catch (const msb::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  try {
    std::ignore = msb::Snapshot::Open(ctx, "nothing", client);
  } catch (const msb::Error& e) {
    return msb::IsKind(e, msb::ErrorKind::kSnapshotNotFound) ? 0 : 1;
  }
  return 1;
}
