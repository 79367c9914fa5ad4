// SPDX-License-Identifier: Apache-2.0
//
// Compares Push and Pull with tar, zstd and skopeo, in one run against one docker-registry on the
// loopback interface.
//
//   bench_registry DIR IMAGE [RUNTIME]
//
// The arguments are as for bench_snapshot; RUNTIME is not used. Each case is run once to warm up
// and then three times, alternating with the others; the median is printed. Before each push the
// storage of the registry is emptied, and the library's homes are empty, so that nothing is reused.
// The library's figures include the flush to disk, which none of the peers does.

#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include "msb/msb.h"
#include "tests/bench/bench.h"
#include "tests/support/docker_registry.h"
#include "tests/support/tcp_proxy.h"

namespace {

namespace fs = std::filesystem;
using msb::bench::PeakMemory;
using msb::bench::PrintRatio;
using msb::bench::Shell;
using std::chrono::milliseconds;

constexpr int kRuns = 3;
constexpr milliseconds kLatency{20};

// Packs the directory $2 as the only layer of an image, in the new OCI layout $1. Nothing reads the
// configuration of the image, so it is empty.
constexpr const char* kPack = R"sh(set -e
mkdir -p "$1/blobs/sha256"
tar -S -C "$2" -cf - . | zstd -q -3 -T2 -o "$1/layer"
add() {
  digest=$(sha256sum <"$1/$2" | cut -c 1-64)
  size=$(stat -c %s "$1/$2")
  mv "$1/$2" "$1/blobs/sha256/$digest"
  descriptor=$(printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' \
    "application/vnd.oci.image.$3" "$digest" "$size")
}
add "$1" layer layer.v1.tar+zstd
layer=$descriptor
printf '{}' >"$1/config"
add "$1" config config.v1+json
printf '{"schemaVersion":2,"config":%s,"layers":[%s]}' "$descriptor" "$layer" >"$1/manifest"
add "$1" manifest manifest.v1+json
printf '{"schemaVersion":2,"manifests":[%s]}' "$descriptor" >"$1/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$1/oci-layout"
)sh";

// Unpacks the largest blob of the OCI layout $1, which is the layer, into the directory $2.
constexpr const char* kUnpack = R"sh(set -e
mkdir "$2"
zstd -dc "$(ls -S "$1"/blobs/sha256/* | head -n 1)" | tar -xSf - -C "$2"
)sh";

// Runs a script with two arguments.
void RunScript(const char* script, const fs::path& one, const fs::path& other) {
  const std::string file = one.native() + ".sh";
  std::ofstream(file) << script;
  Shell("sh '" + file + "' '" + one.native() + "' '" + other.native() + "'");
}

double Megabytes(std::uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }

class Bench {
 public:
  Bench(fs::path dir, const fs::path& image)
      : dir_(std::move(dir)), registry_({.parent = dir_}), proxy_(registry_.port()) {
    artifact_ = MakeSnapshot(image);
    struct stat status {};
    if (stat(Disk().c_str(), &status) != 0) throw std::runtime_error("the snapshot has no disk");
    data_bytes_ = static_cast<std::uint64_t>(status.st_blocks) * 512;
    Shell("cat '" + Disk().native() + "' >/dev/null");  // Into the page cache.
  }

  void Run() {
    BenchMemory();  // Runs first, since a forked process inherits its parent's memory.
    BenchPush();
    BenchPull();
  }

 private:
  fs::path Disk() const { return artifact_ / "upper.ext4"; }
  fs::path Layout() const { return dir_ / "layout"; }
  fs::path Unpacked() const { return dir_ / "unpacked"; }
  std::string Peer() const { return registry_.address() + "/peer:latest"; }

  fs::path MakeSnapshot(const fs::path& image) const {
    msb::Client client({.home = dir_ / "home", .backend = "local"});
    msb::CreateSandbox(ctx_, "s", {msb::WithImage(image.native())}, client).Close();
    return msb::Snapshot::Create(ctx_, "s", {.name = "s", .record_integrity = true}, client).Path();
  }

  // Empties the registry and the other homes.
  void Forget() {
    registry_.storage().Clear();
    for (const fs::path& path : {dir_ / "pusher", Layout(), Unpacked()}) fs::remove_all(path);
    ForgetPulled();
  }
  void ForgetPulled() const {
    for (const fs::path& path : {dir_ / "puller", Layout(), Unpacked()}) fs::remove_all(path);
  }

  void Push(const std::string& registry) const {
    msb::Client client({.home = dir_ / "pusher", .backend = "local"});
    msb::Snapshot::Push(ctx_, artifact_, registry + "/ours", {}, client);
  }
  void Pull(const std::string& registry) const {
    msb::Client client({.home = dir_ / "puller", .backend = "local"});
    msb::Snapshot::Pull(ctx_, registry + "/ours", "", {}, client);
  }
  void PeerPush() const {
    RunScript(kPack, Layout(), artifact_);
    Shell("skopeo --insecure-policy copy -q --dest-tls-verify=false 'oci:" + Layout().native() +
          "' docker://" + Peer());
  }
  void PeerPull() const {
    Shell("skopeo --insecure-policy copy -q --src-tls-verify=false docker://" + Peer() +
          " 'oci:" + Layout().native() + "'");
    RunScript(kUnpack, Layout(), Unpacked());
  }

  void BenchMemory() {
    Forget();
    const double push = PeakMemory([&] { Push(registry_.address()); });
    const double pull = PeakMemory([&] { Pull(registry_.address()); });
    std::printf("peak memory: Push %.1f MiB, Pull %.1f MiB (under 128)\n", push, pull);
  }

  void BenchPush() {
    Measure(
        "Push", "tar -S | zstd -3 -T2, sha256sum, skopeo copy", [this] { Forget(); },
        [this](const std::string& registry) { Push(registry); }, [this] { PeerPush(); });
    Forget();
    const std::uint64_t before = proxy_.sent();
    Push(proxy_.address());
    const std::uint64_t ours = proxy_.sent() - before;
    PeerPush();
    const std::uint64_t peers = msb::test::TotalOf(registry_.storage().Layers("peer"));
    std::printf("  sent: %.1f MB; the peer's blobs have %.1f MB\n", Megabytes(ours),
                Megabytes(peers));
  }

  // Pulls what BenchPush has pushed.
  void BenchPull() {
    Measure(
        "Pull", "skopeo copy, zstd -dc | tar -xS", [this] { ForgetPulled(); },
        [this](const std::string& registry) { Pull(registry); }, [this] { PeerPull(); });
  }

  // Compares ours, which is passed the address of the registry or of the proxy, with peer.
  void Measure(const std::string& name, const char* peer_name, const std::function<void()>& forget,
               const std::function<void(const std::string& registry)>& ours,
               const std::function<void()>& peer) {
    std::printf("%s, %.1f MB of data\n", name.c_str(), Megabytes(data_bytes_));
    const auto after_latency = [&](milliseconds latency) {
      return [this, &forget, latency] {
        proxy_.SetLatency(latency);
        forget();
      };
    };
    const auto through_proxy = [&] { ours(proxy_.address()); };
    const auto times = msb::bench::Compare(
        {{name, forget, [&] { ours(registry_.address()); }},
         {peer_name, forget, peer},
         {name + ", proxy", after_latency(milliseconds(0)), through_proxy},
         {name + ", proxy with 20 ms of latency", after_latency(kLatency), through_proxy}},
        kRuns);
    PrintRatio(("peer / " + name + " (at least 1)").c_str(), times[1], times[0]);
    PrintRatio("with latency / through the proxy (at most 1.5)", times[3], times[2]);
    PrintRatio("with latency / direct", times[3], times[0]);
    const auto speed = [&](double seconds) { return Megabytes(data_bytes_) / seconds; };
    std::printf("  data: %.0f MB/s, the peer %.0f MB/s, with latency %.0f MB/s\n", speed(times[0]),
                speed(times[1]), speed(times[3]));
    std::fflush(stdout);
  }

  const msb::Context ctx_ = msb::Context::Background();
  const fs::path dir_;
  msb::test::DockerRegistry registry_;
  msb::test::TcpProxy proxy_;
  fs::path artifact_;
  std::uint64_t data_bytes_ = 0;
};

void Run(const fs::path& dir, const fs::path& image, const std::string&) {
  if (!msb::test::DockerRegistry::IsInstalled()) {
    std::printf("Push and Pull: skipped, because docker-registry is not installed\n");
    return;
  }
  fs::remove_all(dir);
  fs::create_directories(dir);
  Bench(dir, image).Run();
  fs::remove_all(dir);
}

}  // namespace

int main(int argc, char** argv) { return msb::bench::Main(argc, argv, Run); }
