// The main job, on the embedded local backend: create a sandbox, write into its disk, snapshot it,
// verify the snapshot, and boot two fresh sandboxes from it that then go their own ways.
//
//   quickstart HOME IMAGE      HOME: a directory to work in; IMAGE: a raw disk image with ext4

#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <string>

#include "msb/msb.h"

namespace {

// Runs one step, and prints what it did and what it cost.
void Step(const std::string& what, const std::function<std::string()>& run) {
  const auto start = std::chrono::steady_clock::now();
  const std::string result = run();
  const std::chrono::duration<double, std::milli> cost = std::chrono::steady_clock::now() - start;
  std::printf("%-46s %9.2f ms  %s\n", what.c_str(), cost.count(), result.c_str());
}

// A guest would write through its file system; without a VM, the last bytes of the disk will do.
constexpr std::streamoff kMarkerSize = 64;

void WriteMarker(const msb::SandboxHandle& sandbox, std::string text) {
  std::fstream disk(sandbox.Upper().path, std::ios::in | std::ios::out | std::ios::binary);
  text.resize(kMarkerSize, ' ');
  disk.seekp(-kMarkerSize, std::ios::end);
  disk << text;
  if (!disk.flush()) throw std::runtime_error("cannot write the disk of " + sandbox.Name());
}

std::string ReadMarker(const std::string& disk_path) {
  std::ifstream disk(disk_path, std::ios::binary);
  std::string text(kMarkerSize, '\0');
  disk.seekg(-kMarkerSize, std::ios::end);
  disk.read(text.data(), kMarkerSize);
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

void Expect(const std::string& found, const std::string& expected) {
  if (found != expected) throw std::runtime_error("found '" + found + "', not '" + expected + "'");
}

void Run(const std::string& home, const std::string& image) {
  const auto ctx = msb::Context::Background().WithTimeout(std::chrono::minutes(5));
  msb::Client client({.home = home, .backend = "local"});

  Step("create sandbox 'baseline' from the image", [&] {
    auto sandbox = msb::CreateSandbox(ctx, "baseline", {msb::WithImage(image)}, client);
    sandbox.Stop(ctx);
    sandbox.Close();
    return msb::GetSandbox(ctx, "baseline", client).Upper().path;
  });
  Step("write a marker into its disk", [&] {
    WriteMarker(msb::GetSandbox(ctx, "baseline", client), "installed once");
    return std::string("\"installed once\"");
  });
  Step("snapshot it as 'after-pip-install'", [&] {
    const auto snapshot = msb::Snapshot::Create(
        ctx, "baseline",
        {.name = "after-pip-install", .labels = {{"stage", "post-deps"}}, .record_integrity = true},
        client);
    return snapshot.Digest();
  });
  Step("verify the snapshot", [&] {
    const auto report = msb::Snapshot::Open(ctx, "after-pip-install", client).Verify(ctx);
    return report.upper.kind + ", " + report.upper.algorithm;
  });
  Step("list the snapshots", [&] {
    const auto handles = msb::Snapshot::List(ctx, client);
    return std::to_string(handles.size()) + " in the index";
  });
  for (const std::string name : {"worker-1", "worker-2"}) {
    Step("boot '" + name + "' from the snapshot", [&] {
      auto worker = msb::CreateSandbox(ctx, name, {msb::WithSnapshot("after-pip-install")}, client);
      worker.Stop(ctx);
      worker.Close();
      const auto handle = msb::GetSandbox(ctx, name, client);
      Expect(ReadMarker(handle.Upper().path), "installed once");
      WriteMarker(handle, "written by " + name);
      return std::string("found the marker, wrote its own");
    });
  }
  Step("check that nobody touched another's disk", [&] {
    for (const std::string name : {"worker-1", "worker-2"}) {
      Expect(ReadMarker(msb::GetSandbox(ctx, name, client).Upper().path), "written by " + name);
    }
    msb::Snapshot::Open(ctx, "after-pip-install", client).Verify(ctx);
    return std::string("workers differ, snapshot verified");
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: quickstart HOME IMAGE\n";
    return 2;
  }
  try {
    Run(argv[1], argv[2]);
    return 0;
  } catch (const msb::Error& e) {
    std::cerr << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
  }
  return 1;
}
