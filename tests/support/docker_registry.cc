// SPDX-License-Identifier: Apache-2.0

#include "tests/support/docker_registry.h"

#include <crypt.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <sstream>
#include <stdexcept>

#include "src/base/file.h"
#include "tests/support/build.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProgram = "/usr/bin/docker-registry";

// How long the registry may take to start, on a machine that is very busy.
constexpr auto kStartTime = std::chrono::seconds(60);

// Returns a line of an htpasswd file. docker-registry accepts only bcrypt.
std::string HtpasswdLine(const std::string& user, const std::string& password) {
  crypt_data data{};
  const char* hash = crypt_r(password.c_str(), "$2y$05$msb.tests.need.no.saltO", &data);
  if (hash == nullptr || *hash == '*') throw std::runtime_error("crypt_r does not have bcrypt");
  return user + ":" + hash + "\n";
}

// Runs in the new process.
[[noreturn]] void Execute(const fs::path& config, int log, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execl(kProgram, kProgram, "serve", config.c_str(), nullptr);
  _exit(127);
}

}  // namespace

bool DockerRegistry::IsInstalled() { return fs::exists(kProgram); }

DockerRegistry::DockerRegistry(const DockerRegistryOptions& options)
    : dir_(options.parent.empty() ? ScratchDir() : options.parent) {
  WriteConfig(options);
  Start();
  // From now on, the same port.
  const fs::path config = dir_ / "config.yml";
  std::string text = ReadFile(config);
  text.replace(text.find("127.0.0.1:0"), 11, address());
  WriteFile(config, text);
}

DockerRegistry::~DockerRegistry() { Kill(); }

void DockerRegistry::WriteConfig(const DockerRegistryOptions& options) const {
  std::string text = fmt::format(
      "version: 0.1\n"
      "log: {{level: info}}\n"
      "storage:\n"
      "  filesystem: {{rootdirectory: '{}'}}\n"
      "  maintenance: {{uploadpurging: {{enabled: false}}}}\n"
      "http:\n"
      "  addr: 127.0.0.1:0\n"
      "  secret: shared by all starts\n",
      (dir_ / "storage").native());
  if (options.certificate) {
    text +=
        fmt::format("  tls: {{certificate: '{}', key: '{}'}}\n",
                    options.certificate->certificate.native(), options.certificate->key.native());
  }
  if (!options.user.empty()) {
    WriteFile(dir_ / "htpasswd", HtpasswdLine(options.user, options.password));
    text += fmt::format("auth: {{htpasswd: {{realm: msb, path: '{}'}}}}\n",
                        (dir_ / "htpasswd").native());
  } else if (options.tokens) {
    text += fmt::format(
        "auth: {{token: {{realm: '{}', service: '{}', issuer: '{}', rootcertbundle: '{}'}}}}\n",
        options.tokens->realm, options.tokens->service, options.tokens->issuer,
        options.tokens->certificate.native());
  }
  WriteFile(dir_ / "config.yml", text);
}

void DockerRegistry::Start() {
  const fs::path log = dir_ / "log";
  const fs::path config = dir_ / "config.yml";
  const auto deadline = std::chrono::steady_clock::now() + kStartTime;
  // After a restart, another process may have the port for a moment.
  while (std::chrono::steady_clock::now() < deadline) {
    const base::UniqueFd fd(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    const std::uintmax_t begin = fs::file_size(log);
    const pid_t parent = getpid();
    pid_ = fork();
    if (pid_ < 0) throw std::runtime_error("fork failed");
    if (pid_ == 0) Execute(config, fd.get(), parent);
    if (AwaitPort(begin)) return;
    if (port_ == 0) break;
  }
  throw std::runtime_error("docker-registry does not start: " + ReadFile(log));
}

bool DockerRegistry::AwaitPort(std::uintmax_t log_begin) {
  constexpr std::string_view kListening = "listening on 127.0.0.1:";
  const auto deadline = std::chrono::steady_clock::now() + kStartTime;
  while (std::chrono::steady_clock::now() < deadline) {
    const std::string log = ReadFile(dir_ / "log").substr(log_begin);
    const std::size_t at = log.find(kListening);
    // The port ends at a comma in the text of TLS, else at a quotation mark.
    if (at != std::string::npos && log.find_first_of("\",", at) != std::string::npos) {
      port_ = std::stoi(log.substr(at + kListening.size()));
      return true;
    }
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      return false;
    }
    poll(nullptr, 0, 2);  // The log cannot be waited for.
  }
  Kill();
  return false;
}

void DockerRegistry::Kill() noexcept {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void DockerRegistry::CollectGarbage() const {
  const CommandResult run =
      RunCommand(fmt::format("docker-registry garbage-collect --delete-untagged=true '{}' 2>&1",
                             (dir_ / "config.yml").native()));
  if (run.status != 0) throw std::runtime_error(run.output);
}

std::vector<std::string> DockerRegistry::Requests(std::size_t from) const {
  // 127.0.0.1 - - [TIME] "METHOD PATH HTTP/1.1" STATUS BYTES "" "AGENT"
  std::vector<std::string> requests;
  std::istringstream log(ReadFile(dir_ / "log"));
  for (std::string line; std::getline(log, line);) {
    const std::size_t begin = line.find("] \"");
    const std::size_t end = line.find(" HTTP/1.1\" ");
    if (!line.starts_with("127.0.0.1 ") || begin == std::string::npos || end == std::string::npos) {
      continue;
    }
    if (from > 0) {
      --from;
      continue;
    }
    requests.push_back(line.substr(begin + 3, end - begin - 3) + line.substr(end + 10, 4));
  }
  return requests;
}

}  // namespace msb::test
