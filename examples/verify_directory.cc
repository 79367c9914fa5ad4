// SPDX-License-Identifier: Apache-2.0
//
// How do I verify all artifacts in a directory, several at the same time?
//
//   verify_directory               makes some artifacts, one of them damaged, and verifies them
//   verify_directory DIRECTORY     exits with 1 if an artifact is damaged

#include <array>
#include <atomic>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "msb/msb.h"
#include "temporary_home.h"

namespace {

namespace fs = std::filesystem;

// Returns "verified", "not_recorded", or the error.
std::string StatusOf(const fs::path& artifact, const msb::Client& client) {
  const auto ctx = msb::Context::Background();
  try {
    return msb::Snapshot::Open(ctx, artifact, client).Verify(ctx).upper.kind;
  } catch (const msb::Error& e) {  // An exception must not leave the thread.
    return std::string(msb::ErrorKindName(e.kind())) + ": " + e.what();
  }
}

// Returns true if every artifact is sound. Snapshot::ListDir would leave out a directory whose
// manifest is malformed, which must be reported here.
bool VerifyAll(const fs::path& directory, const msb::Client& client) {
  std::set<fs::path> found;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.is_directory() && entry.path().filename().string()[0] != '.') found.insert(entry);
  }
  const std::vector<fs::path> paths(found.begin(), found.end());
  std::vector<std::string> status(paths.size());
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t at; (at = next++) < paths.size();) status[at] = StatusOf(paths[at], client);
  };
  std::array<std::jthread, 4> threads;
  for (std::jthread& thread : threads) thread = std::jthread(work);
  for (std::jthread& thread : threads) thread.join();
  bool sound = true;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    std::cout << paths[i].filename().string() << ": " << status[i] << "\n";
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
    if (name == "b") {
      std::fstream(made.Path() + "/upper.ext4", std::ios::in | std::ios::out) << "damage";
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
