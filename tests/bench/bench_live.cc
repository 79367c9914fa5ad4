// SPDX-License-Identifier: Apache-2.0
//
// Compares Create of a snapshot of a sandbox that runs with the same exchange of the disk done by
// hand over QMP (an empty overlay by qemu-img, blockdev-add, blockdev-snapshot), for disks of 1, 8
// and 64 GiB. Without a guest that has an agent, nothing is frozen. If MSB_BENCH_GUEST is the
// directory that tests/vm/make_guest.sh has written, Create of a real guest, whose file system is
// frozen meanwhile, is compared with the same by hand. The pause of a program in the guest that
// writes is then measured by the guest's clock, and by the writes that QEMU counts.
//
//   bench_live DIR IMAGE      IMAGE is not used

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
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

double Since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Watches the writes to a sandbox's disk over a QMP socket of its own.
class WriteWatch {
 public:
  explicit WriteWatch(const fs::path& socket)
      : qmp_(ctx_, base::TryConnectAt(ctx_, base::OpenDirectory(socket.parent_path()).get(),
                                      socket.filename())) {}

  // Returns the longest time between two writes, in seconds, from now until is_done returns true
  // and the writes go on.
  double LongestGap(const std::function<bool()>& is_done) {
    double longest = 0;
    std::int64_t writes = Writes();
    for (auto last = Clock::now();;) {
      const bool is_last = is_done();
      const std::int64_t now = Writes();
      longest = std::max(longest, Since(last));
      if (now != writes) {
        if (is_last) return longest;
        last = Clock::now();
        writes = now;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  std::int64_t Writes() {
    const Json devices = qmp_.Execute(ctx_, "query-blockstats");
    return devices.at(0).at("stats").at("wr_operations").get<std::int64_t>();
  }

  const Context ctx_ = Context::Background();
  vmm::QmpClient qmp_;
};

// Exchanges the disk of a sandbox that runs for a new overlay, as a user would by hand.
class HandExchange {
 public:
  HandExchange(fs::path sandbox, int gib) : sandbox_(std::move(sandbox)), gib_(gib) {}

  // Creates the overlay, and lets QEMU open it.
  void Prepare() {
    node_ = fmt::format("hand{}", ++runs_);
    const fs::path overlay = sandbox_ / (node_ + ".qcow2");
    Shell(fmt::format("qemu-img create -q -f qcow2 '{}' {}G", overlay.native(), gib_));
    vmm::QmpClient qmp = Connect();
    qmp.Execute(
        ctx_, "blockdev-add",
        {{"driver", "file"}, {"node-name", node_ + "-file"}, {"filename", overlay.native()}});
    qmp.Execute(ctx_, "blockdev-add",
                {{"driver", "qcow2"},
                 {"node-name", node_},
                 {"file", node_ + "-file"},
                 {"backing", nullptr}});
  }

  void Exchange() {
    Connect().Execute(ctx_, "blockdev-snapshot", {{"node", top_}, {"overlay", node_}});
    top_ = node_;
  }

 private:
  vmm::QmpClient Connect() const {
    return {ctx_, base::TryConnectAt(ctx_, base::OpenDirectory(sandbox_).get(), "qmp.sock")};
  }

  const Context ctx_ = Context::Background();
  const fs::path sandbox_;
  const int gib_;
  int runs_ = 0;
  std::string node_;
  std::string top_ = "upper";
};

// Measures Create of a guest whose file system is frozen meanwhile, and the same by hand in another
// guest.
class FrozenBench {
 public:
  FrozenBench(const fs::path& dir, const fs::path& guest, int gib)
      : dir_(dir),
        gib_(gib),
        client_({.home = dir / "guest-home",
                 .backend = "qemu",
                 .qemu = {.kernel = guest / "vmlinuz",
                          .initrd = guest / "initrd-agent.gz",
                          .append = "console=ttyS0 loglevel=1 tsc=unstable msb.mount msb.agent",
                          .memory_mib = 256,
                          .extra_arguments = {"-qmp", "unix:watch,server=on,wait=off"}}}),
        library_(CreateSandbox(ctx_, "library", {WithImage(dir / "image")}, client_)),
        by_hand_(CreateSandbox(ctx_, "by-hand", {WithImage(dir / "image")}, client_)) {}

  void Run() {
    std::vector<double> in_guest, over_qmp;
    HandExchange exchange(SandboxDir("by-hand"), gib_);
    const auto write = [](Sandbox& sandbox) {
      return [&] { InGuest(sandbox, "echo more >>/data/file"); };
    };
    const std::string size = fmt::format("{} GiB", gib_);
    const auto medians =
        Compare({{"Create (live, frozen), " + size, write(library_), [&] { Create(); }},
                 {"freeze, exchange and thaw by hand, " + size, write(by_hand_),
                  [&] { ByHand(exchange); }}},
                kRuns);
    fmt::print("  => Create (live, frozen) - by hand: {:.1f} ms\n",
               (medians[0] - medians[1]) * 1e3);
    by_hand_.Kill(ctx_);
    InGuest(library_, kWriter);
    for (int i = 0; i < kRuns; ++i) in_guest.push_back(PauseInGuest([&] { Create(); }));
    // Each write must reach the disk to be counted.
    InGuest(library_, "mount -o remount,sync /data");
    for (int i = 0; i < kRuns; ++i) over_qmp.push_back(PauseOverQmp([&] { Create(); }));
    Report("pause by the guest's clock", in_guest);
    Report("pause by QEMU's count of writes", over_qmp);
  }

 private:
  // Writes the time since the guest has booted, in seconds, to the disk again and again.
  static constexpr const char* kWriter =
      "while usleep 5000; do read -r time idle </proc/uptime; "
      "echo $time >>/data/times; done >/dev/null 2>&1 &";

  fs::path SandboxDir(const std::string& name) const {
    return dir_ / "guest-home/sandboxes" / name;
  }

  static ExecResult InGuest(Sandbox& sandbox, const std::string& script) {
    ExecResult result = sandbox.Exec(Context::Background(), {"sh", "-c", script});
    if (result.exit_code != 0) throw std::runtime_error(result.err);
    return result;
  }

  // Calls work. Returns how long the writer was stopped meanwhile, in seconds.
  double PauseInGuest(const std::function<void()>& work) {
    InGuest(library_, ": >/data/times");
    work();
    std::istringstream times(InGuest(library_, "cat /data/times").out);
    double longest = 0;
    double last = 0;
    for (double time = 0; times >> time; last = time) {
      if (last != 0) longest = std::max(longest, time - last);
    }
    return longest;
  }

  // Calls work. Returns the longest time in which no write reached the disk meanwhile, in seconds.
  double PauseOverQmp(const std::function<void()>& work) {
    WriteWatch watch(SandboxDir("library") / "watch");
    std::atomic<bool> is_done = false;
    auto pause = std::async(std::launch::async,
                            [&] { return watch.LongestGap([&] { return is_done.load(); }); });
    work();
    is_done = true;
    return pause.get();
  }

  void Create() {
    Snapshot::Create(
        ctx_, "library",
        {.name = fmt::format("p{}", ++snapshots_), .live = LiveSnapshot::kFilesystemConsistent},
        client_);
  }

  void ByHand(HandExchange& exchange) const {
    const base::UniqueFd dir = base::OpenDirectory(SandboxDir("by-hand"));
    const vmm::GuestAddress guest{dir.get(), "by-hand"};
    const vmm::Warn ignore = [](const std::string&) {};
    exchange.Prepare();
    vmm::QemuFreezer freezer(guest, ignore);
    freezer.Freeze(ctx_, LiveSnapshot::kFilesystemConsistent);
    exchange.Exchange();
    freezer.Thaw();
  }

  const Context ctx_ = Context::Background();
  const fs::path dir_;
  const int gib_;
  int snapshots_ = 0;
  Client client_;
  Sandbox library_;
  Sandbox by_hand_;
};

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
    HandExchange exchange(dir_ / "home/sandboxes/by-hand", gib_);
    int n = 0;
    const auto medians = Compare(
        {{fmt::format("Create (live), {} GiB", gib_), [] {},
          [&] {
            Snapshot::Create(
                ctx_, "library",
                {.name = fmt::format("s{}", ++n), .live = LiveSnapshot::kCrashConsistent}, client);
          }},
         {fmt::format("blockdev-snapshot by hand, {} GiB", gib_), [] {},
          [&] {
            exchange.Prepare();
            exchange.Exchange();
          }}},
        kRuns);
    PrintRatio(fmt::format("Create (live) / by hand, {} GiB", gib_).c_str(), medians[0],
               medians[1]);
    return medians[0];
  }

  void BenchFrozen(const fs::path& guest) const {
    Shell(fmt::format("PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -F '{}'", image_.native()));
    FrozenBench(dir_, guest, gib_).Run();
  }

 private:
  const Context ctx_ = Context::Background();
  const fs::path dir_;
  const int gib_;
  const fs::path image_ = dir_ / "image";
};

void Run(const fs::path& dir, const fs::path& /*image*/, const std::string& /*runtime*/) {
  std::vector<double> medians;
  const char* const guest = std::getenv("MSB_BENCH_GUEST");
  for (const int gib : {1, 8, 64}) {
    LiveBench bench(dir / "live", gib);
    medians.push_back(bench.BenchCreate());
    if (guest != nullptr) bench.BenchFrozen(guest);
  }
  PrintRatio("Create (live), 64 GiB / 1 GiB", medians[2], medians[0]);
}

}  // namespace
}  // namespace msb::bench

int main(int argc, char** argv) { return msb::bench::Main(argc, argv, msb::bench::Run); }
