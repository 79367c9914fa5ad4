// SPDX-License-Identifier: Apache-2.0

#include "tests/support/support.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <random>
#include <sstream>
#include <stdexcept>

#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/disk/extents.h"
#include "tests/support/build.h"

namespace msb::test {

namespace fs = std::filesystem;

testing::AssertionResult Names(std::string_view message, std::initializer_list<std::string> named) {
  testing::AssertionResult result = testing::AssertionSuccess();
  for (const std::string& text : named) {
    if (!text.empty() && message.find(text) != std::string_view::npos) continue;
    if (result) {
      result = testing::AssertionFailure() << "the message \"" << message << "\" does not contain";
    }
    result << " \"" << text << "\"";
  }
  return result;
}

TempDir::TempDir() : TempDir(ScratchDir()) {}

TempDir::TempDir(const fs::path& parent) {
  fs::create_directories(parent);
  path_ = parent / ("t-" + base::RandomSuffix());
  fs::create_directory(path_);
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

Context Soon() { return Context::Background().WithTimeout(std::chrono::minutes(2)); }

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.native());
  std::ostringstream content;
  content << file.rdbuf();
  return std::move(content).str();
}

void WriteFile(const fs::path& path, std::string_view content) {
  fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << content;
  if (!file.flush()) throw std::runtime_error("cannot write " + path.native());
}

void PatchFile(const fs::path& path, std::uint64_t offset, std::string_view bytes) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(offset));
  file << bytes;
  if (!file.flush()) throw std::runtime_error("cannot patch " + path.native());
}

void PatchFileKeepingTime(const std::filesystem::path& path, std::uint64_t offset,
                          std::string_view bytes) {
  const auto time = std::filesystem::last_write_time(path);
  const std::int64_t before = base::StampOf(path)->ctime_ns;
  do {
    PatchFile(path, offset, bytes);
    std::filesystem::last_write_time(path, time);
  } while (base::StampOf(path)->ctime_ns == before);  // Until the kernel's clock has ticked.
}

std::string Noise(std::size_t size, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(generator());
  return bytes;
}

void MakeSparseFile(const fs::path& path, std::uint64_t size,
                    const std::vector<std::pair<std::uint64_t, std::string>>& data) {
  WriteFile(path, "");
  fs::resize_file(path, size);
  for (const auto& [offset, bytes] : data) PatchFile(path, offset, bytes);
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  base::Sync(fd.get());
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> ExtentsOf(const fs::path& path) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<std::pair<std::uint64_t, std::uint64_t>> extents;
  disk::ExtentReader reader(Context::Background(), fd.get(), fs::file_size(path));
  while (const auto extent = reader.Next()) extents.emplace_back(extent->offset, extent->length);
  return extents;
}

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

std::map<std::string, std::string> ListTree(const fs::path& dir) {
  std::map<std::string, std::string> tree;
  if (!fs::exists(dir)) return tree;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    std::string what = "special";
    if (entry.is_symlink()) {
      what = "link " + fs::read_symlink(entry.path()).native();
    } else if (entry.is_directory()) {
      what = "dir";
    } else if (entry.is_regular_file()) {
      what = base::Sha256Digest(ReadFile(entry.path()));
    }
    tree[entry.path().lexically_relative(dir).native()] = what;
  }
  return tree;
}

CommandResult RunCommand(const std::string& shell_command) {
  const std::string command = "{ " + shell_command + "; } 2>&1";
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  if (!pipe) throw std::runtime_error("cannot run " + shell_command);
  CommandResult result;
  std::array<char, 4096> buffer;
  for (std::size_t n = 0; (n = fread(buffer.data(), 1, buffer.size(), pipe.get())) > 0;) {
    result.output.append(buffer.data(), n);
  }
  const int status = pclose(pipe.release());
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

std::vector<std::string> FixtureReleases() { return {"0.6.6", "0.6.18", "0.7.2"}; }

fs::path UnpackFixtureHome(const std::string& release, const fs::path& dir) {
  const fs::path archive = FixturesDir() / release / "home.tar.zst";
  fs::create_directories(dir);
  const CommandResult result =
      RunCommand("zstd -dc '" + archive.native() + "' | tar -S -x -C '" + dir.native() + "'");
  if (result.status != 0) throw std::runtime_error("cannot unpack: " + result.output);
  return dir / "msb";
}

fs::path PeerPath(const std::string& release) {
  const char* peers = std::getenv("MSB_PEERS");
  if (peers == nullptr || *peers == '\0') return {};
  const fs::path peer = fs::path(peers) / ("msb-" + release);
  return fs::exists(peer) ? peer : fs::path();
}

Client LocalClient(const fs::path& home, std::vector<std::string>* log) {
  Config config{.home = home, .backend = "local"};
  if (log != nullptr) {
    const auto mutex = std::make_shared<std::mutex>();
    config.log = [log, mutex](std::string_view message) {
      const std::lock_guard lock(*mutex);
      log->emplace_back(message);
    };
  }
  return Client(std::move(config));
}

void MakeStoppedSandbox(Client& client, const std::string& name, const fs::path& image) {
  const Context ctx = Context::Background();
  if (!fs::exists(image)) {
    MakeSparseFile(image, 8 << 20, {{0, Noise(4096, 1)}, {5 << 20, Noise(300'000, 2)}});
  }
  Sandbox sandbox = CreateSandbox(ctx, name, {WithImage(image.native())}, client);
  sandbox.Close();
}

std::vector<std::string> SnapshotNames(Client& client) {
  std::vector<std::string> names;
  for (const SnapshotHandle& handle : Snapshot::List(Context::Background(), client)) {
    names.push_back(handle.Name().value_or("(none)"));
  }
  return names;
}

}  // namespace msb::test
