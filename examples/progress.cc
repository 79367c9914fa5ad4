// SPDX-License-Identifier: Apache-2.0
//
// How do I show the progress of a call, and cancel it? A cancelled call leaves nothing behind.

#include <exception>
#include <filesystem>
#include <iostream>
#include <string>

#include "msb/msb.h"
#include "temporary_home.h"

namespace {

void Show(const msb::Progress& progress) {
  const auto total = progress.bytes_total == 0 ? 1 : progress.bytes_total;
  std::cout << progress.phase << " " << 100 * progress.bytes_done / total << " % of "
            << (total >> 20) << " MiB\n";
}

void Run() {
  const example::TemporaryHome home;
  const auto ctx = msb::Context::Background();
  const msb::Client client({.home = home.Path(), .backend = "local"});
  msb::CreateSandbox(ctx, "baseline", {msb::WithImage(home.MakeImage(32))}, client).Close();
  msb::Snapshot::Create(ctx, "baseline", {.name = "deps"}, client);
  const std::filesystem::path directory = home.Path() + "/archives";
  std::filesystem::create_directory(directory);

  // A Context carries the progress function to the call, which reports at most 20 times a second
  // and at the end.
  msb::Snapshot::Export(ctx.WithProgress(Show), "deps", directory / "complete.tar.zst", {}, client);

  // Any thread may cancel, at any time. Here the progress function does, so that the call is
  // certainly in progress. Ctrl-C would be handled likewise.
  const auto [cancellable, cancel] = ctx.WithCancel();
  const auto cancel_now = [&cancel = cancel](const msb::Progress&) { cancel(); };
  try {
    msb::Snapshot::Export(cancellable.WithProgress(cancel_now), "deps",
                          directory / "cancelled.tar.zst", {}, client);
    std::cout << "the export was complete before it noticed\n";
  } catch (const msb::Error& e) {
    if (e.kind() != msb::ErrorKind::kCancelled) throw;
    std::cout << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  }

  // Neither an archive nor a temporary file of the cancelled call is there.
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::cout << "left: " << entry.path().filename().string() << "\n";
  }
}

}  // namespace

int main(int argc, char** /*argv*/) {
  if (argc != 1) {
    std::cerr << "usage: progress\n";
    return 2;
  }
  try {
    Run();
    return 0;
  } catch (const msb::Error& e) {
    std::cerr << "progress: " << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "progress: " << e.what() << "\n";
  }
  return 1;
}
