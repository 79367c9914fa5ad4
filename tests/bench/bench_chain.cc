// SPDX-License-Identifier: Apache-2.0
//
// Times qcow2 chains: booting a snapshot up to the point where the VM would start, taking a
// snapshot of what a sandbox wrote, restoring a sandbox, and flattening a chain. Compares with a
// released runtime and qemu-img.
//
//   bench_chain DIR IMAGE [RUNTIME]
//
// The arguments are as for bench_snapshot. RUNTIME must be 0.6.18; its home is made from the
// fixture. qemu-io writes what a guest would write. Each case is run once to warm up and then five
// times, alternating with its peers; the median is printed. The library's figures include the flush
// to disk.

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "msb/msb.h"
#include "tests/bench/bench.h"

namespace {

namespace fs = std::filesystem;
using msb::bench::Case;
using msb::bench::PrintRatio;
using msb::bench::Shell;

constexpr int kRuns = 5;
constexpr int kWrittenMiB = 1434;  // As much as the IMAGE of docs/benchmarks.md.

std::vector<double> Compare(const std::vector<Case>& cases) {
  return msb::bench::Compare(cases, kRuns);
}

class Bench {
 public:
  Bench(fs::path dir, fs::path image, std::string runtime)
      : dir_(std::move(dir)), image_(std::move(image)), runtime_(std::move(runtime)) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }

  ~Bench() { fs::remove_all(dir_); }

  void Run() {
    std::vector<double> create;
    std::vector<double> boot;
    std::vector<double> restore;
    for (const int gib : {1, 8, 64}) {
      const auto times = BenchSize(gib);
      create.push_back(times[0]);
      boot.push_back(times[1]);
      restore.push_back(times[2]);
    }
    PrintRatio("Create, 64 GiB / 8 GiB", create[2], create[1]);
    PrintRatio("boot, 64 GiB / 8 GiB", boot[2], boot[1]);
    PrintRatio("Restore, 64 GiB / 8 GiB", restore[2], restore[1]);
    if (!runtime_.empty()) BenchRuntime(create[1], boot[1]);
    BenchFlatten();
  }

 private:
  msb::Client NewClient() const {
    return msb::Client(
        {.home = dir_ / "home", .backend = "local", .upper_format = msb::DiskFormat::kQcow2});
  }

  std::string UpperOf(const std::string& sandbox) const {
    msb::Client client = NewClient();
    return msb::GetSandbox(ctx_, sandbox, client).Upper().path;
  }

  // Writes mib MiB to a sandbox's disk from begin_mib on, and flushes it, as a guest does on
  // shutdown. Unless gap_mib is 0, leaves a gap of gap_mib MiB after each MiB.
  void WriteInto(const std::string& sandbox, int mib, int begin_mib = 0, int gap_mib = 0) const {
    constexpr int kMostAtOnce = 128;
    std::string command = "qemu-io -f qcow2";
    const int step = gap_mib == 0 ? kMostAtOnce : 1;
    for (int done = 0; done < mib; done += step) {
      command += " -c 'write -q -P 7 " + std::to_string(begin_mib) + "M " +
                 std::to_string(std::min(step, mib - done)) + "M'";
      begin_mib += step + gap_mib;
    }
    const std::string upper = UpperOf(sandbox);
    Shell(command + " '" + upper + "' >/dev/null && sync '" + upper + "'");
  }

  msb::SnapshotArtifact Create(const std::string& sandbox) {
    msb::Client client = NewClient();
    latest_ = "s" + std::to_string(snapshots_++);
    return msb::Snapshot::Create(ctx_, sandbox, {.name = latest_}, client);
  }

  void Boot(const std::string& name, const std::string& snapshot) const {
    msb::Client client = NewClient();
    msb::CreateSandbox(ctx_, name, {msb::WithSnapshot(snapshot)}, client).Close();
  }

  void Restore(const std::string& sandbox, const std::string& snapshot) const {
    msb::Client client = NewClient();
    msb::Snapshot::Restore(ctx_, sandbox, snapshot, client);
  }

  void Remove(const std::string& sandbox) const {
    if (!fs::exists(dir_ / "home/sandboxes" / sandbox)) return;
    msb::Client client = NewClient();
    msb::RemoveSandbox(ctx_, sandbox, client);
  }

  // Returns the times of Create, of a boot and of Restore.
  std::vector<double> BenchSize(int gib) {
    const int written_mib = std::min(kWrittenMiB, gib * 1000);
    std::printf("a qcow2 disk of %d GiB, %d MiB written\n", gib, written_mib);
    const std::string image = dir_ / "empty.qcow2";
    Shell("qemu-img create -q -f qcow2 '" + image + "' " + std::to_string(gib) + "G");
    const std::string sandbox = "disk" + std::to_string(gib);
    {
      msb::Client client = NewClient();
      msb::CreateSandbox(ctx_, sandbox, {msb::WithImage(image)}, client).Close();
    }
    std::vector<double> times = Compare(
        {{"Create (under 20)", [&] { WriteInto(sandbox, written_mib); }, [&] { Create(sandbox); }},
         {"boot preparation (under 5)", [&] { Remove("worker"); },
          [&] { Boot("worker", latest_); }},
         {"Restore (under 20)", [&] { WriteInto("worker", 16); },
          [&] { Restore("worker", latest_); }}});
    fs::remove_all(dir_ / "home");  // Frees the space of all that was written.
    return times;
  }

  // The runtime copies the disk, and then fails because it has no kernel to boot.
  void BenchRuntime(double create, double boot) const {
    std::printf("release 0.6.18, %s\n", image_.c_str());
    const std::string home = dir_ / "msb";
    Shell("zstd -qdc '" MSB_BENCH_FIXTURES "/0.6.18/home.tar.zst' | tar -xS -C '" + dir_.native() +
          "' && cp --sparse=always '" + image_.native() + "' '" + home +
          "/sandboxes/baseline/upper.ext4' && : >'" + home + "/no-kernel.so'");
    const std::string program = "MSB_HOME='" + home + "' MSB_PATH='" + runtime_ +
                                "' MSB_LIBKRUNFW_PATH='" + home + "/no-kernel.so' '" + runtime_ +
                                "' ";
    const std::string copy = home + "/sandboxes/worker/upper.ext4";
    const auto times =
        Compare({{"runtime: snapshot create", [&] { fs::remove_all(home + "/snapshots/big"); },
                  [&] { Shell(program + "snapshot create -q --from baseline big >/dev/null"); }},
                 {"runtime: run --from-snapshot",
                  [&] { Shell(program + "remove --force worker >/dev/null 2>&1 || true"); },
                  [&] {
                    Shell("! " + program +
                          "run --detach --name worker --from-snapshot big >/dev/null 2>&1");
                  }}});
    if (fs::file_size(copy) != fs::file_size(image_)) throw std::runtime_error("it did not copy");
    PrintRatio("runtime / Create", times[0], create);
    PrintRatio("runtime / boot preparation", times[1], boot);
  }

  void BenchFlatten() {
    std::printf("Flatten: %s below two snapshots\n", image_.c_str());
    {
      msb::Client client = NewClient();
      msb::CreateSandbox(ctx_, "a", {msb::WithImage(image_.native())}, client).Close();
    }
    WriteInto("a", 300, 100);
    Create("a");
    WriteInto("a", 100, 50, 60);
    const std::string head = Create("a").Path();
    Boot("b", head);
    // The sandbox's directory has all files of the chain, under the names that the headers use.
    const std::string upper = UpperOf("b");
    Shell("cat '" + fs::path(upper).parent_path().native() + "'/sha256_* >/dev/null");
    const fs::path ours = dir_ / "ours";
    const fs::path theirs = dir_ / "theirs";
    for (const auto format : {msb::DiskFormat::kRaw, msb::DiskFormat::kQcow2}) {
      const std::string name(msb::ToString(format));
      const std::string convert =
          "qemu-img convert -f qcow2 -O " + name + " '" + upper + "' '" + theirs.native() + "'";
      const auto times =
          Compare({{"Flatten, " + name, [&] { fs::remove(ours); },
                    [&] {
                      msb::Client client = NewClient();
                      msb::Snapshot::Flatten(ctx_, head, ours, {.format = format}, client);
                    }},
                   {"qemu-img convert", [&] { fs::remove(theirs); }, [&] { Shell(convert); }},
                   {"qemu-img convert and sync", [&] { fs::remove(theirs); },
                    [&] { Shell(convert + " && sync '" + theirs.native() + "'"); }}});
      Shell("qemu-img compare -q -f " + name + " -F " + name + " '" + ours.native() + "' '" +
            theirs.native() + "'");
      PrintRatio("convert / Flatten (at least 1)", times[1], times[0]);
      PrintRatio("convert and sync / Flatten", times[2], times[0]);
    }
  }

  const msb::Context ctx_ = msb::Context::Background();
  fs::path dir_;
  fs::path image_;
  std::string runtime_;
  std::string latest_;  // Name of the latest snapshot.
  int snapshots_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  return msb::bench::Main(argc, argv, [](const auto& dir, const auto& image, const auto& runtime) {
    Bench(dir, image, runtime).Run();
  });
}
