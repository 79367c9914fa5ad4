// SPDX-License-Identifier: Apache-2.0
//
// Compares Export and Import with tar, zstd and a released runtime, in one run on one disk.
//
//   bench_archive DIR IMAGE [RUNTIME]
//
// The arguments are as for bench_snapshot. Each case is run once to warm up and then three times,
// alternating with its peers; the median is printed. The library's figures include the flush to
// disk, which none of the peers does.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "msb/msb.h"
#include "tests/bench/bench.h"

namespace {

namespace fs = std::filesystem;
using msb::bench::Case;
using msb::bench::PeakMemory;
using msb::bench::PrintRatio;
using msb::bench::Shell;

constexpr int kRuns = 3;

class Bench {
 public:
  Bench(fs::path dir, fs::path image, std::string runtime)
      : dir_(std::move(dir)), image_(std::move(image)), runtime_(std::move(runtime)) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }

  ~Bench() { fs::remove_all(dir_); }

  void Run() {
    artifact_ = MakeSnapshot(image_, msb::Generation::kDescriptor, true);
    Shell("cat '" + (artifact_ / "upper.ext4").native() + "' >/dev/null");  // Into the page cache.
    BenchMemory();  // Runs first, since a forked process inherits its parent's memory.
    BenchExport(false);
    BenchImport(false);
    BenchExport(true);
    BenchImport(true);
    BenchEmpty();
  }

 private:
  msb::Client NewClient(msb::Generation generation = msb::Generation::kDescriptor) const {
    return msb::Client({.home = dir_ / "home", .backend = "local", .generation = generation});
  }

  fs::path MakeSnapshot(const fs::path& image, msb::Generation generation, bool integrity) {
    msb::Client client = NewClient(generation);
    const std::string name = "s" + std::to_string(snapshots_++);
    msb::CreateSandbox(ctx_, name, {msb::WithImage(image.native())}, client).Close();
    return msb::Snapshot::Create(ctx_, name, {.name = name, .record_integrity = integrity}, client)
        .Path();
  }

  void Export(const fs::path& artifact, const fs::path& out, bool plain) const {
    msb::Client client = NewClient();
    msb::Snapshot::Export(ctx_, artifact, out, {.plain_tar = plain}, client);
  }

  void Import(const fs::path& archive) const {
    msb::Client client({.home = Target(), .backend = "local"});
    msb::Snapshot::Import(ctx_, archive, "", client);
  }

  fs::path Target() const { return dir_ / "target"; }
  fs::path Archive(const std::string& who, bool plain) const {
    return dir_ / (who + (plain ? ".tar" : ".tar.zst"));
  }
  std::string Runtime(const std::string& arguments) const {
    return "MSB_HOME='" + (dir_ / "peer").native() + "' '" + runtime_ + "' snapshot " + arguments +
           " >/dev/null";
  }

  void BenchExport(bool plain) {
    std::printf("%s, %s\n", plain ? "plain Export" : "Export", image_.c_str());
    const fs::path ours = Archive("ours", plain);
    const fs::path tar = Archive("tar", plain);
    const fs::path peer = Archive("peer", plain);
    std::vector<Case> cases = {
        {"Export", [=] { fs::remove(ours); }, [=, this] { Export(artifact_, ours, plain); }},
        {plain ? "tar -S" : "tar -S | zstd -3 -T2", [=] { fs::remove(tar); },
         [=, this] {
           Shell("tar -S -C '" + artifact_.native() + "' -cf - ." +
                 (plain ? " >'" : " | zstd -q -3 -T2 -o '") + tar.native() + "'");
         }}};
    if (!runtime_.empty()) {
      cases.push_back({"runtime: snapshot save", [=] { fs::remove(peer); },
                       [=, this] {
                         Shell(Runtime(std::string("save ") + (plain ? "--plain-tar '" : "'") +
                                       artifact_.native() + "' '" + peer.native() + "'"));
                       }});
    }
    const auto times = msb::bench::Compare(cases, kRuns);
    PrintRatio("tar / Export (at least 1)", times[1], times[0]);
    if (runtime_.empty()) return;
    PrintRatio(plain ? "runtime / Export (at least 2.5)" : "runtime / Export (at least 3)",
               times[2], times[0]);
    PrintRatio("size / the runtime's (at most 1.03)", static_cast<double>(fs::file_size(ours)),
               static_cast<double>(fs::file_size(peer)));
  }

  void BenchImport(bool plain) {
    std::printf("%s\n", plain ? "plain Import" : "Import");
    const fs::path archive = Archive("ours", plain);
    const fs::path unpacked = dir_ / "unpacked";
    const fs::path peer = dir_ / "peer";
    std::vector<Case> cases = {
        {"Import", [this] { fs::remove_all(Target()); }, [=, this] { Import(archive); }},
        {plain ? "tar -xS" : "zstd -dc | tar -xS",
         [=] {
           fs::remove_all(unpacked);
           fs::create_directory(unpacked);
         },
         [=] {
           const std::string into = "tar -xSf - -C '" + unpacked.native() + "'";
           Shell(plain ? into + " <'" + archive.native() + "'"
                       : "zstd -dc '" + archive.native() + "' | " + into);
         }}};
    if (!runtime_.empty()) {
      cases.push_back({"runtime: snapshot load", [=] { fs::remove_all(peer); },
                       [=, this] { Shell(Runtime("load '" + archive.native() + "'")); }});
    }
    const auto times = msb::bench::Compare(cases, kRuns);
    PrintRatio("tar / Import (at least 1)", times[1], times[0]);
    if (runtime_.empty()) return;
    PrintRatio(plain ? "runtime / Import (at least 5)" : "runtime / Import (at least 4)", times[2],
               times[0]);
  }

  void BenchEmpty() {
    std::printf("empty 4 GiB upper\n");
    const fs::path image = dir_ / "empty.img";
    std::ofstream(image).flush();
    fs::resize_file(image, std::uintmax_t{4} << 30);
    const fs::path sparse = MakeSnapshot(image, msb::Generation::kDescriptor, true);
    const fs::path dense = MakeSnapshot(image, msb::Generation::kManifest, false);
    const auto nothing = [] {};
    const auto no_target = [this] { fs::remove_all(Target()); };
    for (const bool plain : {false, true}) {
      const fs::path out = Archive("sparse", plain);
      const fs::path dense_out = Archive("dense", plain);
      const std::string kind = plain ? ", plain" : "";
      msb::bench::Compare(
          {{"Export, sparse (under 30)" + kind, nothing, [&] { Export(sparse, out, plain); }},
           {"Import, sparse (under 30)" + kind, no_target, [&] { Import(out); }},
           {"Export, dense (under 1500)" + kind, nothing, [&] { Export(dense, dense_out, plain); }},
           {"Import, dense (under 1500)" + kind, no_target, [&] { Import(dense_out); }}},
          kRuns);
    }
  }

  void BenchMemory() {
    const fs::path out = dir_ / "memory.tar.zst";
    const double export_mib = PeakMemory([&] { Export(artifact_, out, false); });
    const double import_mib = PeakMemory([&] { Import(out); });
    std::printf("peak memory: Export %.1f MiB, Import %.1f MiB (under 128)\n", export_mib,
                import_mib);
  }

  const msb::Context ctx_ = msb::Context::Background();
  fs::path dir_;
  fs::path image_;
  std::string runtime_;
  fs::path artifact_;
  int snapshots_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  return msb::bench::Main(argc, argv, [](const auto& dir, const auto& image, const auto& runtime) {
    Bench(dir, image, runtime).Run();
  });
}
