// SPDX-License-Identifier: Apache-2.0
//
// Compares Create of a snapshot of a sandbox that runs with the same exchange of the disk done by
// hand over QMP (an empty overlay by qemu-img, blockdev-add, blockdev-snapshot), for disks of 1, 8
// and 64 GiB. Without a guest that has an agent, nothing is frozen. If MSB_BENCH_GUEST is the
// directory that tests/vm/make_guest.sh has written, the time from freezing to thawing is measured
// too, with the file system of a real guest.
//
//   bench_live DIR IMAGE      IMAGE is not used

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "msb/msb.h"
#include "src/base/file.h"
#include "src/base/unix_socket.h"
#include "src/vmm/qemu_freezer.h"
#include "src/vmm/qmp_client.h"
#include "tests/bench/bench.h"

namespace msb::bench {
namespace {

namespace fs = std::filesystem;
using base::Json;
using Clock = std::chrono::steady_clock;

constexpr int kRuns = 15;

class LiveBench {
 public:
  LiveBench(fs::path dir, int gib) : dir_(std::move(dir)), gib_(gib) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
    Shell(fmt::format("truncate -s {}G '{}'", gib, image_.native()));
  }
  ~LiveBench() { fs::remove_all(dir_); }
  LiveBench(const LiveBench&) = delete;
  LiveBench& operator=(const LiveBench&) = delete;

  // Returns the median of Create in seconds.
  double BenchCreate() {
    Client client({.home = dir_ / "home",
                   .backend = "qemu",
                   .qemu = {.memory_mib = 64, .extra_arguments = {"-S"}}});
    const Sandbox library = CreateSandbox(ctx_, "library", {WithImage(image_)}, client);
    const Sandbox by_hand = CreateSandbox(ctx_, "by-hand", {WithImage(image_)}, client);
    int n = 0;
    const auto medians = Compare(
        {{fmt::format("Create (live), {} GiB", gib_), [] {},
          [&] {
            Snapshot::Create(
                ctx_, "library",
                {.name = fmt::format("s{}", ++n), .live = LiveSnapshot::kCrashConsistent}, client);
          }},
         {fmt::format("blockdev-snapshot by hand, {} GiB", gib_), [] {}, [&] { SwitchByHand(); }}},
        kRuns);
    PrintRatio(fmt::format("Create (live) / by hand, {} GiB", gib_).c_str(), medians[0],
               medians[1]);
    return medians[0];
  }

  // Prints the times from freezing to thawing.
  void BenchPause(const fs::path& guest) {
    Shell(fmt::format("PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -F '{}'", image_.native()));
    Client client({.home = dir_ / "guest-home",
                   .backend = "qemu",
                   .qemu = {.kernel = guest / "vmlinuz",
                            .initrd = guest / "initrd-agent.gz",
                            .append = "console=ttyS0 loglevel=1 tsc=unstable msb.mount msb.agent",
                            .memory_mib = 256}});
    Sandbox sandbox = CreateSandbox(ctx_, "box", {WithImage(image_)}, client);
    InGuest(sandbox, "true");
    std::vector<double> pauses;
    std::vector<double> calls;
    for (int i = 0; i < kRuns; ++i) {
      InGuest(sandbox, "echo more >>/data/file");
      const auto begin = Clock::now();
      Snapshot::Create(ctx_, "box",
                       {.name = fmt::format("p{}", i), .live = LiveSnapshot::kFilesystemConsistent},
                       client);
      calls.push_back(Since(begin));
      pauses.push_back(FreezeOnly(dir_ / "guest-home/sandboxes/box"));
    }
    Report("Create (live, frozen)", calls);
    Report("freeze and thaw alone", pauses);
    sandbox.Kill(ctx_);
  }

 private:
  static double Since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  void InGuest(const Sandbox& sandbox, const std::string& script) const {
    const ExecResult result = sandbox.Exec(ctx_, {"sh", "-c", script});
    if (result.exit_code != 0) throw std::runtime_error(result.err);
  }

  double FreezeOnly(const fs::path& sandbox) const {
    const base::UniqueFd dir = base::OpenDirectory(sandbox);
    const vmm::GuestAddress guest{dir.get(), "box"};
    const vmm::Warn ignore = [](const std::string&) {};
    vmm::QemuFreezer freezer(guest, ignore);
    const auto begin = Clock::now();
    freezer.Freeze(ctx_, LiveSnapshot::kFilesystemConsistent);
    freezer.Thaw();
    return Since(begin);
  }

  void Report(const char* what, std::vector<double> seconds) const {
    std::sort(seconds.begin(), seconds.end());
    fmt::print("{}, {} GiB: median {:.1f} ms, {:.1f} to {:.1f} ms\n", what, gib_,
               seconds[seconds.size() / 2] * 1e3, seconds.front() * 1e3, seconds.back() * 1e3);
  }

  void SwitchByHand() {
    const fs::path sandbox = dir_ / "home/sandboxes/by-hand";
    const std::string node = fmt::format("hand{}", ++switches_);
    const fs::path overlay = sandbox / (node + ".qcow2");
    Shell(fmt::format("qemu-img create -q -f qcow2 '{}' {}G", overlay.native(), gib_));
    vmm::QmpClient qmp(ctx_,
                       base::TryConnectAt(ctx_, base::OpenDirectory(sandbox).get(), "qmp.sock"));
    qmp.Execute(
        ctx_, "blockdev-add",
        {{"driver", "file"}, {"node-name", node + "-file"}, {"filename", overlay.native()}});
    qmp.Execute(
        ctx_, "blockdev-add",
        {{"driver", "qcow2"}, {"node-name", node}, {"file", node + "-file"}, {"backing", nullptr}});
    qmp.Execute(ctx_, "blockdev-snapshot", {{"node", top_}, {"overlay", node}});
    top_ = node;
  }

  const Context ctx_ = Context::Background();
  const fs::path dir_;
  const int gib_;
  const fs::path image_ = dir_ / "image";
  int switches_ = 0;
  std::string top_ = "upper";
};

void Run(const fs::path& dir, const fs::path& /*image*/, const std::string& /*runtime*/) {
  std::vector<double> medians;
  const char* const guest = std::getenv("MSB_BENCH_GUEST");
  for (const int gib : {1, 8, 64}) {
    LiveBench bench(dir / "live", gib);
    medians.push_back(bench.BenchCreate());
    if (guest != nullptr) bench.BenchPause(guest);
  }
  PrintRatio("Create (live), 64 GiB / 1 GiB", medians[2], medians[0]);
}

}  // namespace
}  // namespace msb::bench

int main(int argc, char** argv) { return msb::bench::Main(argc, argv, msb::bench::Run); }
