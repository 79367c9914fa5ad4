// How do I verify all artifacts in a directory? Several threads verify one each.
//
//   verify_directory [DIRECTORY]     exits with 1 if an artifact is damaged
//
// Without a directory, makes some artifacts, one of them damaged.

#include <atomic>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "msb/msb.h"
#include "temporary_home.h"

namespace {

namespace fs = std::filesystem;

// Returns "verified", "not_recorded", or what is wrong.
std::string StatusOf(const msb::Context& ctx, const msb::SnapshotArtifact& artifact) {
  try {
    return artifact.Verify(ctx).upper.kind;
  } catch (const msb::Error& e) {  // Must not leave the thread.
    return std::string(msb::ErrorKindName(e.kind())) + ": " + e.what();
  }
}

// Returns true if every artifact is sound.
bool VerifyAll(const fs::path& directory, const msb::Client& client) {
  const auto ctx = msb::Context::Background();
  // Directories that are not artifacts are left out, and malformed artifacts are logged.
  const auto artifacts = msb::Snapshot::ListDir(ctx, directory, client);
  std::vector<std::string> status(artifacts.size());
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t at; (at = next++) < artifacts.size();)
      status[at] = StatusOf(ctx, artifacts[at]);
  };
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(work);
  for (std::jthread& thread : threads) thread.join();
  bool sound = true;
  for (std::size_t i = 0; i < artifacts.size(); ++i) {
    std::cout << fs::path(artifacts[i].Path()).filename().string() << ": " << status[i] << "\n";
    sound = sound && (status[i] == "verified" || status[i] == "not_recorded");
  }
  return sound;
}

void Demonstrate() {
  const example::TemporaryHome home;
  const auto ctx = msb::Context::Background();
  const msb::Client client({.home = home.Path(), .backend = "local"});
  msb::CreateSandbox(ctx, "baseline", {msb::WithImage(home.MakeImage())}, client).Close();
  for (const std::string name : {"a", "b", "c", "d"}) {
    const auto made = msb::Snapshot::Create(
        ctx, "baseline", {.name = name, .record_integrity = name != "d"}, client);
    if (name != "b") continue;
    for (const auto& file : fs::directory_iterator(made.Path())) {
      if (file.file_size() != made.SizeBytes()) continue;  // The manifest.
      fs::permissions(file, fs::perms::owner_write, fs::perm_options::add);
      std::fstream(file.path(), std::ios::in | std::ios::out | std::ios::binary) << "damage";
    }
  }
  VerifyAll(client.config().snapshots_dir, client);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
    std::cerr << "usage: verify_directory [DIRECTORY]\n";
    return 2;
  }
  try {
    if (argc == 2) return VerifyAll(argv[1], msb::Client::Default()) ? 0 : 1;
    Demonstrate();
    return 0;
  } catch (const msb::Error& e) {
    std::cerr << "verify_directory: " << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "verify_directory: " << e.what() << "\n";
  }
  return 1;
}
