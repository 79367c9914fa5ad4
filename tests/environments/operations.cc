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

  std::vector<OperationResult> Run() {
    ReadOperations();
    WriteOperations();
    RemoveOperations();
    Try("nothing is left behind", [&] { CheckNothingLeft(); });
    return std::move(results_);
  }

 private:
  Client MakeClient(DiskFormat format) const {
    return Client({.home = root_ / "home",
                   .backend = "local",
                   .upper_format = format,
                   .log = [](std::string_view) {}});
  }

  void Try(std::string name, const std::function<void()>& operation) {
    std::string error;
    try {
      operation();
    } catch (const Error& e) {
      error = fmt::format("{}: {}", ErrorKindName(e.kind()), e.what());
    } catch (const std::exception& e) {
      error = e.what();
    }
    results_.push_back({std::move(name), std::move(error)});
  }

  // Checks that the disk of the snapshot, in whatever format, has the content of the image.
  void CheckDisk(const std::string& snapshot) {
    const fs::path disk = out_ / "check.raw";
    Snapshot::Flatten(ctx_, snapshot, disk, {}, raw_);
    const std::string found = Read(disk);
    fs::remove(disk);
    Check(found == Content(), snapshot + " has another content");
  }

  void ReadOperations() {
    Try("List", [&] { Check(Snapshot::List(ctx_, raw_).size() == 4, "not 4 snapshots"); });
    Try("Open", [&] { std::ignore = Snapshot::Open(ctx_, "raw", raw_); });
    Try("Get", [&] { std::ignore = Snapshot::Get(ctx_, "cow", raw_); });
    Try("Verify", [&] {
      std::ignore = Snapshot::Open(ctx_, "raw", raw_).Verify(ctx_);
      std::ignore = Snapshot::Open(ctx_, "cow", raw_).Verify(ctx_);
    });
    Try("Flatten", [&] {
      CheckDisk("raw");
      CheckDisk("cow");
    });
    Try("Export", [&] {
      Snapshot::Export(ctx_, "cow", out_ / "cow.tar.zst",
                       {.with_parents = true, .with_image = true}, raw_);
      Snapshot::Export(ctx_, "raw", out_ / "raw.tar", {.plain_tar = true}, raw_);
    });
    Try("Import elsewhere", [&] {
      Client other({.home = out_ / "other", .backend = "local", .log = [](std::string_view) {}});
      Snapshot::Import(ctx_, out_ / "cow.tar.zst", "", other);
      Snapshot::Import(ctx_, out_ / "raw.tar", "", other);
    });
    Try("Usage", [&] { Check(Snapshot::Usage(ctx_, raw_).size() == 4, "not 4 snapshots"); });
    Try("ListSandboxes", [&] { Check(ListSandboxes(ctx_, raw_).size() == 4, "not 4 sandboxes"); });
  }

  void WriteOperations() {
    Try("Create, raw", [&] {
      Snapshot::Create(ctx_, "raw", {.name = "new-raw", .record_integrity = true}, raw_);
      CheckDisk("new-raw");
    });
    Try("Create, qcow2", [&] {
      Snapshot::Create(ctx_, "cow", {.name = "new-cow", .record_integrity = true}, cow_);
      CheckDisk("new-cow");
    });
    Try("Create with force", [&] {
      const std::string before = Snapshot::Open(ctx_, "old-raw", raw_).Digest();
      const auto now = Snapshot::Create(ctx_, "raw", {.name = "old-raw", .force = true}, raw_);
      Check(now.Digest() != before, "it is the old one");
      CheckDisk("old-raw");
    });
    Try("Squash", [&] {
      Snapshot::Squash(ctx_, "cow", {.name = "squashed"}, raw_);
      CheckDisk("squashed");
    });
    Try("Import",
        [&] { Snapshot::Import(ctx_, out_ / "cow.tar.zst", root_ / "home" / "imported", raw_); });
    Try("CreateSandbox, raw", [&] {
      CreateSandbox(ctx_, "new-raw", {WithSnapshot("raw")}, raw_).Close();
      Check(Read(GetSandbox(ctx_, "new-raw", raw_).Upper().path) == Content(), "another content");
    });
    Try("CreateSandbox, qcow2", [&] {
      CreateSandbox(ctx_, "new-cow", {WithSnapshot("cow")}, cow_).Close();
      Snapshot::Create(ctx_, "new-cow", {.name = "of-new-cow"}, cow_);
      CheckDisk("of-new-cow");
    });
    Try("CreateSandbox with replace", [&] {
      CreateSandbox(ctx_, "old-cow", {WithSnapshot("raw"), WithReplace()}, cow_).Close();
    });
    Try("Restore", [&] {
      Snapshot::Restore(ctx_, "raw", "raw", raw_);
      Check(Read(GetSandbox(ctx_, "raw", raw_).Upper().path) == Content(), "another content");
      Snapshot::Restore(ctx_, "cow", "cow", raw_);
      Snapshot::Create(ctx_, "cow", {.name = "of-restored"}, cow_);
      CheckDisk("of-restored");
    });
    Try("Start and Stop", [&] {
      for (const std::string name : {"raw", "cow"}) {
        Sandbox sandbox = StartSandbox(ctx_, name, raw_);
        sandbox.Stop(ctx_);
        sandbox.Close();
      }
    });
    Try("Reindex", [&] { Snapshot::Reindex(ctx_, "", raw_); });
  }

  void RemoveOperations() {
    Try("Remove", [&] {
      Snapshot::Remove(ctx_, "old-raw", false, raw_);
      Snapshot::Remove(ctx_, "raw", true, raw_);
      Check(!fs::exists(root_ / "home/snapshots/old-raw"), "it is still there");
    });
    Try("Prune", [&] {
      Snapshot::Create(ctx_, "raw", {.name = "old", .labels = {{"prune", "yes"}}}, raw_);
      const auto pruned = Snapshot::Prune(ctx_, {.labels = {{"prune", "yes"}}}, raw_);
      Check(pruned.size() == 1, "not one snapshot was removed");
      Check(!fs::exists(root_ / "home/snapshots/old"), "it is still there");
    });
    Try("RemoveSandbox", [&] {
      RemoveSandbox(ctx_, "raw", raw_);
      RemoveSandbox(ctx_, "old-raw", raw_);
      Check(!fs::exists(root_ / "home/sandboxes/raw"), "it is still there");
    });
    Try("use of the names again", [&] {
      CreateSandbox(ctx_, "raw", {WithImage(root_ / "base.img")}, raw_).Close();
      Snapshot::Create(ctx_, "raw", {.name = "raw"}, raw_);
      CheckDisk("raw");
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

std::vector<OperationResult> TryOperations(const fs::path& root, const fs::path& out) {
  fs::create_directories(out);
  return Trial(root, out).Run();
}

}  // namespace msb::test
