// SPDX-License-Identifier: Apache-2.0
//
// The main workflow, on the local backend: create a sandbox, write a file into its disk,
// snapshot it, verify the snapshot, boot two new sandboxes from it that find the file and then
// change their own disks, and copy the snapshot to another home.
//
//   quickstart HOME IMAGE      HOME: a directory to work in; IMAGE: a raw disk image with ext4

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>

#include "msb/msb.h"

namespace {

// Runs one step, and prints its result and how long it took.
void Step(const std::string& what, const std::function<std::string()>& run) {
  const auto start = std::chrono::steady_clock::now();
  const std::string result = run();
  const std::chrono::duration<double, std::milli> cost = std::chrono::steady_clock::now() - start;
  std::printf("%-44s %9.2f ms  %s\n", what.c_str(), cost.count(), result.c_str());
  std::fflush(stdout);
}

// A file on a sandbox's disk. A guest would mount the disk; this reads and writes it from outside,
// with debugfs(8).
class GuestFile {
 public:
  GuestFile(const msb::SandboxHandle& sandbox, std::string work_dir)
      : disk_(sandbox.Upper().path), scratch_(std::move(work_dir) + "/scratch") {}

  void Write(const std::string& text) const {
    std::ofstream(scratch_) << text;
    Debugfs("-w", "rm marker");  // Not an error if there is no such file yet.
    Debugfs("-w", "write \"" + scratch_ + "\" marker");
  }

  std::string Read() const {
    std::ofstream(scratch_).flush();
    Debugfs("", "dump marker \"" + scratch_ + "\"");
    std::ostringstream text;
    text << std::ifstream(scratch_).rdbuf();
    return text.str();
  }

  void Expect(const std::string& text) const {
    if (Read() != text) throw std::runtime_error("found '" + Read() + "', not '" + text + "'");
  }

 private:
  void Debugfs(const std::string& mode, const std::string& request) const {
    const std::string command = "PATH=$PATH:/usr/sbin debugfs " + mode + " -R '" + request + "' '" +
                                disk_ + "' >/dev/null 2>&1";
    if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
  }

  std::string disk_;
  std::string scratch_;
};

void Run(const std::string& home, const std::string& image) {
  const auto ctx = msb::Context::Background().WithTimeout(std::chrono::minutes(5));
  msb::Client client({.home = home, .backend = "local"});
  const auto file_in = [&](const std::string& sandbox) {
    return GuestFile(msb::GetSandbox(ctx, sandbox, client), home);
  };
  msb::Client elsewhere({.home = home + "/elsewhere", .backend = "local"});

  Step("create sandbox 'baseline' from the image", [&] {
    auto sandbox = msb::CreateSandbox(ctx, "baseline", {msb::WithImage(image)}, client);
    sandbox.Stop(ctx);
    sandbox.Close();
    return msb::GetSandbox(ctx, "baseline", client).Upper().path;
  });
  Step("write a marker file into its disk", [&] {
    file_in("baseline").Write("installed once");
    return file_in("baseline").Read();
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
  Step("list the snapshots",
       [&] { return std::to_string(msb::Snapshot::List(ctx, client).size()) + " in the index"; });
  for (const std::string name : {"worker-1", "worker-2"}) {
    Step("boot '" + name + "' from the snapshot", [&] {
      auto worker = msb::CreateSandbox(ctx, name, {msb::WithSnapshot("after-pip-install")}, client);
      worker.Stop(ctx);
      worker.Close();
      return msb::GetSandbox(ctx, name, client).Upper().path;
    });
    Step("find the marker in it, and write another", [&] {
      file_in(name).Expect("installed once");
      file_in(name).Write("written by " + name);
      return file_in(name).Read();
    });
  }
  Step("check that the disks are independent", [&] {
    file_in("baseline").Expect("installed once");
    for (const std::string name : {"worker-1", "worker-2"}) {
      file_in(name).Expect("written by " + name);
    }
    const auto report = msb::Snapshot::Open(ctx, "after-pip-install", client).Verify(ctx);
    return "all as written, snapshot " + report.upper.kind;
  });
  const std::string archive = home + "/snapshot.tar.zst";
  Step("export the snapshot with its image", [&] {
    msb::Snapshot::Export(ctx, "after-pip-install", archive, {.with_image = true}, client);
    return std::string(archive);
  });
  Step("import it into another home, and boot there", [&] {
    const auto handle = msb::Snapshot::Import(ctx, archive, "", elsewhere);
    msb::CreateSandbox(ctx, "worker", {msb::WithSnapshot(handle.Path())}, elsewhere).Close();
    GuestFile(msb::GetSandbox(ctx, "worker", elsewhere), home).Expect("installed once");
    return handle.Digest();
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
