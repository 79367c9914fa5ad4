// SPDX-License-Identifier: Apache-2.0

#include "tests/environments/operations.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "msb/msb.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDiskBytes = 4 << 20;
constexpr std::size_t kDataAt = 1 << 20;
constexpr std::size_t kDataBytes = 300'000;

std::string Content() {
  std::string content(kDiskBytes, '\0');
  std::uint32_t state = 1;
  for (std::size_t i = kDataAt; i < kDataAt + kDataBytes; ++i) {
    state = state * 1'664'525 + 1'013'904'223;
    content[i] = static_cast<char>(state >> 24);
  }
  return content;
}

std::string Read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void MakeImage(const fs::path& path) {
  std::ofstream file(path, std::ios::binary);
  file.seekp(kDataAt);
  file << Content().substr(kDataAt, kDataBytes);
  file.close();
  fs::resize_file(path, kDiskBytes);
  // A digest is remembered only for an image that was not modified within the last second.
  fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(1));
}

void Check(bool is_right, const std::string& what) {
  if (!is_right) throw std::runtime_error(what);
}

class Trial {
 public:
  Trial(fs::path root, fs::path out)
      : root_(std::move(root)),
        out_(std::move(out)),
        raw_(MakeClient(DiskFormat::kRaw)),
        cow_(MakeClient(DiskFormat::kQcow2)) {}

  void Populate() {
    MakeImage(root_ / "base.img");
    for (const std::string prefix : {"", "old-"}) {
      CreateSandbox(ctx_, prefix + "raw", {WithImage(root_ / "base.img")}, raw_).Close();
      CreateSandbox(ctx_, prefix + "cow", {WithImage(root_ / "base.img")}, cow_).Close();
      Snapshot::Create(ctx_, prefix + "raw", {.name = prefix + "raw"}, raw_);
      Snapshot::Create(ctx_, prefix + "cow", {.name = prefix + "cow"}, cow_);
    }
  }

  std::vector<OperationResult> Run(const std::string& repository) {
    ReadOperations();
    CopyOperations();
    RegistryOperations(repository);
    CreateOperations();
    SandboxOperations();
    RunOperations();
    RemoveOperations();
    UseNamesAgain();
    Reads("nothing is left behind", [&] { CheckNothingLeft(); });
    return std::move(results_);
  }

 private:
  using Operation = std::function<void()>;

  Client MakeClient(DiskFormat format) const {
    return Client({.home = root_ / "home",
                   .backend = "local",
                   .upper_format = format,
                   .log = [](std::string_view) {}});
  }
  // Returns a client of another home, which is writable.
  Client OtherClient(const std::string& name) const {
    return Client({.home = out_ / name, .backend = "local", .log = [](std::string_view) {}});
  }

  void Reads(std::string name, const Operation& operation) {
    Try(std::move(name), Access::kReads, operation);
  }
  void Writes(std::string name, const Operation& operation) {
    Try(std::move(name), Access::kWrites, operation);
  }
  void Try(std::string name, Access access, const Operation& operation) {
    std::string error;
    try {
      operation();
    } catch (const Error& e) {
      error = fmt::format("{}: {}", ErrorKindName(e.kind()), e.what());
    } catch (const std::exception& e) {
      error = e.what();
    }
    results_.push_back({std::move(name), access, Outcome::kTried, std::move(error)});
  }
  void Skip(std::string name, Access access) {
    results_.push_back({std::move(name), access, Outcome::kSkipped, {}});
  }

  // Checks that the disk of the snapshot, in whatever format, has the content of the image.
  void CheckDisk(const std::string& snapshot) const { CheckDisk(snapshot, raw_); }
  void CheckDisk(const std::string& snapshot, const Client& client) const {
    const fs::path disk = out_ / "check.raw";
    Snapshot::Flatten(ctx_, snapshot, disk, {}, client);
    const std::string found = Read(disk);
    fs::remove(disk);
    Check(found == Content(), snapshot + " has another content");
  }

  // Checks the upper of a sandbox that has a raw disk.
  void CheckUpper(const std::string& sandbox) const {
    Check(Read(GetSandbox(ctx_, sandbox, raw_).Upper().path) == Content(),
          sandbox + " has another content");
  }
  void CheckStatus(const std::string& sandbox, SandboxStatus expected) const {
    Check(GetSandbox(ctx_, sandbox, raw_).Status() == expected, sandbox + " has another status");
  }
  void CheckAbsent(const std::string& name) const {
    Check(!fs::exists(root_ / "home" / name), name + " is still there");
  }

  void ReadOperations() {
    Reads("List", [&] { Check(Snapshot::List(ctx_, raw_).size() == 4, "not 4 snapshots"); });
    Reads("ListDir",
          [&] { Check(Snapshot::ListDir(ctx_, "", raw_).size() == 4, "not 4 snapshots"); });
    Reads("Open", [&] {
      Check(Snapshot::Open(ctx_, "raw", raw_).SizeBytes() == kDiskBytes, "another size");
    });
    Reads("Get", [&] { Check(Snapshot::Get(ctx_, "cow", raw_).Name() == "cow", "another name"); });
    Reads("SnapshotHandle::Open", [&] {
      const SnapshotHandle handle = Snapshot::Get(ctx_, "cow", raw_);
      Check(handle.Open(ctx_).Digest() == handle.Digest(), "another digest");
    });
    Reads("Verify", [&] {
      std::ignore = Snapshot::Open(ctx_, "raw", raw_).Verify(ctx_);
      std::ignore = Snapshot::Open(ctx_, "cow", raw_).Verify(ctx_);
    });
    Reads("Usage", [&] { Check(Snapshot::Usage(ctx_, raw_).size() == 4, "not 4 snapshots"); });
    Reads("ListSandboxes",
          [&] { Check(ListSandboxes(ctx_, raw_).size() == 4, "not 4 sandboxes"); });
    Reads("GetSandbox", [&] { CheckUpper("raw"); });
    Reads("SandboxHandle::Refresh", [&] {
      SandboxHandle handle = GetSandbox(ctx_, "cow", raw_);
      handle.Refresh(ctx_);
      Check(handle.Status() == SandboxStatus::kStopped, "another status");
    });
  }

  // These read the home and write elsewhere.
  void CopyOperations() {
    Reads("Flatten", [&] {
      CheckDisk("raw");
      CheckDisk("cow");
    });
    Reads("Export", [&] {
      Snapshot::Export(ctx_, "cow", out_ / "cow.tar.zst",
                       {.with_parents = true, .with_image = true}, raw_);
      Snapshot::Export(ctx_, "raw", out_ / "raw.tar", {.plain_tar = true}, raw_);
    });
    Reads("Import elsewhere", [&] {
      Client other = OtherClient("other");
      const SnapshotImportOptions named{.name = "cow"};
      Snapshot::Import(ctx_, out_ / "cow.tar.zst", "", named, other);
      Snapshot::Import(ctx_, out_ / "raw.tar", "", other);
      CheckDisk("cow", other);
    });
    Reads("CreateSandbox elsewhere", [&] {
      Client other = OtherClient("other");
      CreateSandbox(ctx_, "raw", {WithSnapshot(root_ / "home/snapshots/raw")}, other).Close();
      Check(Read(GetSandbox(ctx_, "raw", other).Upper().path) == Content(), "another content");
    });
  }

  void RegistryOperations(const std::string& repository) {
    if (repository.empty()) {
      Skip("Push", Access::kReads);
      Skip("Pull elsewhere", Access::kReads);
      return Skip("Pull", Access::kWrites);
    }
    Reads("Push", [&] {
      Snapshot::Push(ctx_, "cow", repository + ":cow", {.with_parents = true, .with_image = true},
                     raw_);
      Snapshot::Push(ctx_, "raw", repository + ":raw", {}, raw_);
    });
    Reads("Pull elsewhere", [&] {
      Client other = OtherClient("pulled");
      for (const std::string name : {"cow", "raw"}) {
        Snapshot::Pull(ctx_, repository + ":" + name, "", {.name = name}, other);
        CheckDisk(name, other);
      }
    });
    Writes("Pull", [&] {
      const fs::path pulled = root_ / "home" / "pulled";
      Snapshot::Pull(ctx_, repository + ":cow", pulled, {.name = "cow"}, raw_);
      CheckDisk(pulled / "cow");
    });
  }

  void CreateOperations() {
    Writes("Create, raw", [&] {
      Snapshot::Create(ctx_, "raw", {.name = "new-raw", .record_integrity = true}, raw_);
      CheckDisk("new-raw");
    });
    Writes("Create, qcow2", [&] {
      Snapshot::Create(ctx_, "cow", {.name = "new-cow", .record_integrity = true}, cow_);
      CheckDisk("new-cow");
    });
    Writes("Create with force", [&] {
      const std::string before = Snapshot::Open(ctx_, "old-raw", raw_).Digest();
      const auto now = Snapshot::Create(ctx_, "raw", {.name = "old-raw", .force = true}, raw_);
      Check(now.Digest() != before, "it is the old one");
      CheckDisk("old-raw");
    });
    Writes("SandboxHandle::Snapshot", [&] {
      GetSandbox(ctx_, "raw", raw_).Snapshot(ctx_, "by-handle");
      CheckDisk("by-handle");
    });
    Writes("SandboxHandle::SnapshotTo", [&] {
      const fs::path path = root_ / "home" / "to-path";
      GetSandbox(ctx_, "cow", cow_).SnapshotTo(ctx_, path);
      CheckDisk(path);
    });
    Writes("Squash", [&] {
      Snapshot::Squash(ctx_, "cow", {.name = "squashed"}, raw_);
      CheckDisk("squashed");
    });
    Writes("Import", [&] {
      Snapshot::Import(ctx_, out_ / "cow.tar.zst", root_ / "home" / "imported", raw_);
    });
    Writes("Reindex",
           [&] { Check(Snapshot::Reindex(ctx_, "", raw_) >= 4, "fewer than 4 snapshots"); });
  }

  void SandboxOperations() {
    Writes("CreateSandbox, raw", [&] {
      CreateSandbox(ctx_, "new-raw", {WithSnapshot("raw")}, raw_).Close();
      CheckUpper("new-raw");
    });
    Writes("CreateSandbox, qcow2", [&] {
      CreateSandbox(ctx_, "new-cow", {WithSnapshot("cow")}, cow_).Close();
      Snapshot::Create(ctx_, "new-cow", {.name = "of-new-cow"}, cow_);
      CheckDisk("of-new-cow");
    });
    Writes("CreateSandbox with replace", [&] {
      CreateSandbox(ctx_, "old-cow", {WithSnapshot("raw"), WithReplace()}, cow_).Close();
    });
    Writes("Restore", [&] {
      Snapshot::Restore(ctx_, "raw", "raw", raw_);
      CheckUpper("raw");
      Snapshot::Restore(ctx_, "cow", "cow", raw_);
      Snapshot::Create(ctx_, "cow", {.name = "of-restored"}, cow_);
      CheckDisk("of-restored");
    });
  }

  // Each starts the sandbox first, which needs a writable home.
  void RunOperations() {
    Writes("StartSandbox and Sandbox::Stop", [&] {
      for (const std::string name : {"raw", "cow"}) {
        Sandbox sandbox = StartSandbox(ctx_, name, raw_);
        CheckStatus(name, SandboxStatus::kRunning);
        sandbox.Stop(ctx_);
        CheckStatus(name, SandboxStatus::kStopped);
        sandbox.Close();
      }
    });
    Writes("Sandbox::Kill and WaitUntilStopped", [&] {
      Sandbox sandbox = StartSandbox(ctx_, "raw", raw_);
      sandbox.Kill(ctx_);
      Check(sandbox.WaitUntilStopped(ctx_) == SandboxStatus::kStopped, "another status");
      sandbox.Close();
    });
    Writes("Sandbox::Close", [&] {
      StartSandbox(ctx_, "raw", raw_).Close();
      CheckStatus("raw", SandboxStatus::kStopped);
    });
    Writes("Sandbox::Detach and SandboxHandle::Stop", [&] {
      StartSandbox(ctx_, "raw", raw_).Detach(ctx_);
      CheckStatus("raw", SandboxStatus::kRunning);
      GetSandbox(ctx_, "raw", raw_).Stop(ctx_);
      CheckStatus("raw", SandboxStatus::kStopped);
    });
    Writes("SandboxHandle::Start and Kill", [&] {
      const SandboxHandle handle = GetSandbox(ctx_, "cow", raw_);
      Sandbox sandbox = handle.Start(ctx_);
      CheckStatus("cow", SandboxStatus::kRunning);
      handle.Kill(ctx_);
      CheckStatus("cow", SandboxStatus::kStopped);
      sandbox.Close();
    });
  }

  void RemoveOperations() {
    Writes("Remove", [&] {
      Snapshot::Remove(ctx_, "old-raw", false, raw_);
      Snapshot::Remove(ctx_, "raw", true, raw_);
      CheckAbsent("snapshots/old-raw");
    });
    Writes("SnapshotHandle::Remove", [&] {
      Snapshot::Get(ctx_, "old-cow", raw_).Remove(ctx_, true);
      CheckAbsent("snapshots/old-cow");
    });
    Writes("Prune", [&] {
      Snapshot::Create(ctx_, "raw", {.name = "old", .labels = {{"prune", "yes"}}}, raw_);
      const auto pruned = Snapshot::Prune(ctx_, {.labels = {{"prune", "yes"}}}, raw_);
      Check(pruned.size() == 1, "not one snapshot was removed");
      CheckAbsent("snapshots/old");
    });
    Writes("RemoveSandbox", [&] {
      RemoveSandbox(ctx_, "raw", raw_);
      CheckAbsent("sandboxes/raw");
    });
    Writes("SandboxHandle::Remove", [&] {
      GetSandbox(ctx_, "old-raw", raw_).Remove(ctx_);
      CheckAbsent("sandboxes/old-raw");
    });
  }

  void UseNamesAgain() {
    Writes("use of the names again", [&] {
      for (int i = 0; i < 2; ++i) {
        CreateSandbox(ctx_, "again", {WithImage(root_ / "base.img")}, raw_).Close();
        Snapshot::Create(ctx_, "again", {.name = "again"}, raw_);
        CheckDisk("again");
        Snapshot::Remove(ctx_, "again", false, raw_);
        RemoveSandbox(ctx_, "again", raw_);
      }
    });
  }

  void CheckNothingLeft() const {
    for (const auto& entry : fs::recursive_directory_iterator(root_ / "home")) {
      const std::string name = entry.path().filename();
      Check(!name.starts_with(".msb-"), entry.path().native());
    }
  }

  const Context ctx_ = Context::Background();
  const fs::path root_;
  const fs::path out_;
  Client raw_;
  Client cow_;
  std::vector<OperationResult> results_;
};

}  // namespace

void MakeEnvironmentHome(const fs::path& root) {
  fs::create_directories(root);
  Trial(root, root).Populate();
}

std::vector<OperationResult> TryOperations(const fs::path& root, const fs::path& out,
                                           const std::string& repository) {
  fs::create_directories(out);
  return Trial(root, out).Run(repository);
}

}  // namespace msb::test
