// SPDX-License-Identifier: Apache-2.0
//
// Compares the library with its peers, in one run on one disk, and prints medians and ratios.
//
//   bench_snapshot DIR IMAGE [RUNTIME]
//
// DIR: the directory to work in, on the disk to measure; its content is deleted. IMAGE: the disk
// image to snapshot. RUNTIME: the executable of a released microsandbox runtime, 0.6.7 to 0.6.18.
// Each case is run once to warm up and then five times, alternating with its peer; the median is
// printed.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <tuple>
#include <vector>

#include "msb/msb.h"
#include "tests/bench/bench.h"

namespace {

namespace fs = std::filesystem;
using msb::bench::Case;
using msb::bench::PeakMemory;
using msb::bench::PrintRatio;
using msb::bench::Shell;

constexpr int kRuns = 5;

std::vector<double> Compare(const std::vector<Case>& cases) {
  return msb::bench::Compare(cases, kRuns);
}

class Bench {
 public:
  Bench(fs::path dir, fs::path image, std::string runtime)
      : dir_(std::move(dir)), image_(std::move(image)), runtime_(std::move(runtime)) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
    home_ = dir_ / "home";
  }

  ~Bench() { fs::remove_all(dir_); }

  void Run() {
    MakeBaseline();
    BenchCreate();
    BenchVerify();
    BenchEmpty();
    BenchIndex();
    BenchMemory();
  }

 private:
  msb::Client NewClient() const { return msb::Client({.home = home_, .backend = "local"}); }

  void MakeBaseline() {
    msb::Client client = NewClient();
    auto sandbox = msb::CreateSandbox(ctx_, "baseline", {msb::WithImage(image_.native())}, client);
    sandbox.Close();
    upper_ = msb::GetSandbox(ctx_, "baseline", client).Upper().path;
    Shell("cat '" + upper_ + "' >/dev/null");  // Into the page cache, for all cases alike.
  }

  Case CreateCase(const std::string& name, bool integrity) {
    return {name, [this] { fs::remove_all(home_ / "snapshots"); },
            [this, integrity] {
              msb::Client client = NewClient();
              msb::Snapshot::Create(ctx_, "baseline",
                                    {.name = "bench", .record_integrity = integrity}, client);
            }};
  }

  void BenchCreate() {
    std::printf("Create, %s\n", image_.c_str());
    const std::string copy = dir_ / "copy";
    const auto times = Compare({{"cp --sparse=auto + sync of the file", [&] { fs::remove(copy); },
                                 [&] {
                                   Shell("cp --sparse=auto '" + upper_ + "' '" + copy +
                                         "' && sync '" + copy + "'");
                                 }},
                                CreateCase("Create", false),
                                CreateCase("Create with integrity", true)});
    fs::remove(copy);
    PrintRatio("Create / cp + sync (at most 1.05)", times[1], times[0]);
    PrintRatio("Create with integrity / Create (at most 1.2)", times[2], times[1]);
  }

  void BenchVerify() {
    std::printf("Verify\n");
    const auto nothing = [] {};
    const fs::path artifact = home_ / "snapshots" / "bench";  // The snapshot that has integrity.
    std::vector<Case> cases = {{"Verify", nothing, [&] {
                                  msb::Client client = NewClient();
                                  std::ignore =
                                      msb::Snapshot::Open(ctx_, artifact, client).Verify(ctx_);
                                }}};
    if (!runtime_.empty()) {
      const std::string peer_home = dir_ / "peer-home";
      cases.push_back({"runtime: snapshot verify", nothing, [&, peer_home] {
                         Shell("MSB_HOME='" + peer_home + "' '" + runtime_ + "' snapshot verify '" +
                               artifact.native() + "' >/dev/null");
                       }});
    }
    const auto times = Compare(cases);
    if (!runtime_.empty()) PrintRatio("runtime / Verify (at least 2)", times[1], times[0]);
  }

  // Measures Create when there is nothing to copy. Its peer makes and flushes the same files.
  void BenchEmpty() {
    std::printf("Create of an empty 4 GiB upper\n");
    const fs::path image = dir_ / "empty.img";
    std::ofstream(image).flush();
    fs::resize_file(image, std::uintmax_t{4} << 30);
    msb::Client client = NewClient();
    msb::CreateSandbox(ctx_, "empty", {msb::WithImage(image.native())}, client).Close();
    const fs::path snapshot = home_ / "snapshots" / "empty";
    const fs::path flushed = dir_ / "flushed";
    const auto times =
        Compare({{"Create", [&] { fs::remove_all(snapshot); },
                  [&] { msb::Snapshot::Create(ctx_, "empty", {.name = "empty"}, client); }},
                 {"the same files, made and flushed", [&] { fs::remove_all(flushed); },
                  [&] { MakeFlushed(flushed); }}});
    std::printf("  => beyond the flushes: %.2f ms (under 10)\n", (times[0] - times[1]) * 1e3);
  }

  static void MakeFlushed(const fs::path& dir) {
    const auto flush = [](const fs::path& path) {
      FILE* file = std::fopen(path.c_str(), "r");
      if (file == nullptr || fsync(fileno(file)) != 0) throw std::runtime_error("cannot flush");
      std::fclose(file);
    };
    fs::create_directories(dir);
    std::ofstream(dir / "upper").flush();
    fs::resize_file(dir / "upper", std::uintmax_t{4} << 30);
    flush(dir / "upper");
    std::ofstream(dir / "manifest") << std::string(500, 'm');
    flush(dir / "manifest");
    flush(dir);
    fs::rename(dir / "manifest", dir / "published");
    flush(dir.parent_path());
  }

  void BenchIndex() {
    constexpr int kArtifacts = 10'000;
    std::printf("Index of %d artifacts\n", kArtifacts);
    const fs::path home = dir_ / "many";
    msb::Client client({.home = home, .backend = "local"});
    const fs::path tiny = dir_ / "tiny.img";
    std::ofstream(tiny) << "tiny";
    msb::CreateSandbox(ctx_, "tiny", {msb::WithImage(tiny.native())}, client).Close();
    const fs::path first = msb::Snapshot::Create(ctx_, "tiny", {.name = "s0"}, client).Path();
    const std::string manifest = ReadAll(first / "snapshot.json");
    for (int i = 1; i < kArtifacts; ++i) {
      const fs::path dir = home / "snapshots" / ("s" + std::to_string(i));
      fs::create_directory(dir);
      fs::copy(first / "upper.ext4", dir / "upper.ext4");
      // A different label gives the artifact a different identity.
      std::string own = manifest;
      own.replace(own.find("\"labels\":{}"), 11,
                  "\"labels\":{\"n\":\"" + std::to_string(i) + "\"}");
      std::ofstream(dir / "snapshot.json") << own;
    }
    const auto nothing = [] {};
    Compare({{"Reindex (under 1000)", nothing,
              [&] {
                const auto n = msb::Snapshot::Reindex(ctx_, "", client);
                if (n != kArtifacts) throw std::runtime_error("indexed " + std::to_string(n));
              }},
             {"List (under 50)", nothing, [&] {
                if (msb::Snapshot::List(ctx_, client).size() != kArtifacts) {
                  throw std::runtime_error("List misses some");
                }
              }}});
    std::printf("  peak memory: Reindex %.1f MiB, List %.1f MiB (under 64)\n", PeakMemory([&] {
                  msb::Client own({.home = home, .backend = "local"});
                  msb::Snapshot::Reindex(ctx_, "", own);
                }),
                PeakMemory([&] {
                  msb::Client own({.home = home, .backend = "local"});
                  std::ignore = msb::Snapshot::List(ctx_, own);
                }));
  }

  void BenchMemory() {
    const Case create = CreateCase("", true);
    create.prepare();
    const double create_mib = PeakMemory(create.run);
    const double verify_mib = PeakMemory([&] {
      msb::Client client = NewClient();
      std::ignore = msb::Snapshot::Open(ctx_, "bench", client).Verify(ctx_);
    });
    std::printf("  peak memory: Create with integrity %.1f MiB, Verify %.1f MiB (under 64)\n",
                create_mib, verify_mib);
  }

  static std::string ReadAll(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const msb::Context ctx_ = msb::Context::Background();
  fs::path dir_;
  fs::path image_;
  std::string runtime_;
  fs::path home_;
  std::string upper_;
};

}  // namespace

int main(int argc, char** argv) {
  return msb::bench::Main(argc, argv, [](const auto& dir, const auto& image, const auto& runtime) {
    Bench(dir, image, runtime).Run();
  });
}
