// SPDX-License-Identifier: Apache-2.0
//
// doctor: what works here, what does not, and what to do about it.

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/exit_code.h"
#include "tools/msb-snapshot/interrupt.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"
#include "tools/msb-snapshot/wording.h"

namespace msb::program {
namespace {

namespace fs = std::filesystem;

// Less free space than this is worth a warning.
constexpr std::uint64_t kLittleSpace = 1ULL << 30;

enum class Status { kOk, kWarning, kProblem };

struct Check {
  std::string name;
  Status status = Status::kOk;
  std::string message;
  std::string advice = {};  // What to do; empty if there is nothing to do.
};

std::string_view NameOf(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kWarning:
      return "warning";
    case Status::kProblem:
      return "problem";
  }
  return "";
}

Color ColorOf(Status status) {
  if (status == Status::kOk) return Color::kGreen;
  return status == Status::kWarning ? Color::kYellow : Color::kRed;
}

// Returns the path of a program on the PATH, or an empty path.
fs::path FindProgram(const fs::path& name) {
  if (name.has_parent_path()) return access(name.c_str(), X_OK) == 0 ? name : fs::path();
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(':'), rest.size());
    fs::path candidate = fs::path(rest.substr(0, end)) / name;
    if (access(candidate.c_str(), X_OK) == 0 && fs::is_regular_file(candidate)) return candidate;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return {};
}

// Returns the first line that `program --version` prints, or nullopt if it fails.
std::optional<std::string> VersionOf(const fs::path& program) {
  std::string quoted = program.native();
  for (std::size_t i = 0; (i = quoted.find('\'', i)) != std::string::npos; i += 4) {
    quoted.replace(i, 1, "'\\''");
  }
  struct Close {
    void operator()(std::FILE* file) const { pclose(file); }
  };
  const std::unique_ptr<std::FILE, Close> output(
      popen(fmt::format("'{}' --version 2>/dev/null", quoted).c_str(), "re"));
  if (!output) return std::nullopt;
  std::string line;
  for (int c = 0; line.size() < 200 && (c = std::fgetc(output.get())) != EOF && c != '\n';) {
    line += static_cast<char>(c);
  }
  return line.empty() ? std::nullopt : std::optional(line);
}

// Returns path, or its nearest ancestor that exists.
fs::path NearestExisting(fs::path path) {
  std::error_code error;
  while (!fs::exists(path, error) && path.has_relative_path()) path = path.parent_path();
  return path;
}

// Returns path, or its nearest ancestor at which something is, even a link that leads nowhere.
fs::path NearestEntry(fs::path path) {
  std::error_code error;
  while (path.has_relative_path() &&
         fs::symlink_status(path, error).type() == fs::file_type::not_found) {
    path = path.parent_path();
  }
  return path;
}

// Returns a problem if the home, a directory above it or one of its directories exists but is not
// an accessible directory.
std::optional<Check> FindClosedDirectory(const Config& config) {
  for (const fs::path& place :
       {config.home, config.snapshots_dir, config.sandboxes_dir, config.cache_dir}) {
    const fs::path dir = NearestEntry(place);
    std::error_code error;
    std::error_code link_error;
    if (fs::is_directory(fs::status(dir, error))) continue;
    const fs::file_type type = fs::symlink_status(dir, link_error).type();
    if (type == fs::file_type::not_found) continue;
    if (type == fs::file_type::symlink && error == std::errc::no_such_file_or_directory) {
      return Check{"home", Status::kProblem,
                   fmt::format("{} is a symbolic link to {}, which is absent", dir.native(),
                               fs::read_symlink(dir, error).native()),
                   "mount the volume that it leads to, or correct the link"};
    }
    if (!error) {
      return Check{"home", Status::kProblem, fmt::format("{} is not a directory", dir.native()),
                   "move it away, or choose a directory with --home or MSB_HOME"};
    }
    return Check{
        "home", Status::kProblem,
        fmt::format("{} cannot be opened: {}", dir.native(), error.message()),
        "if it is a mount point, unmount it and mount it again; otherwise change its owner "
        "or mode, or choose a directory with --home or MSB_HOME"};
  }
  return std::nullopt;
}

Check CheckHome(const Client& client) {
  const fs::path home = client.config().home;
  if (auto closed = FindClosedDirectory(client.config())) return *std::move(closed);
  const fs::path existing = NearestExisting(home);
  if (access(existing.c_str(), W_OK) != 0 && existing != home) {
    return {"home", Status::kProblem,
            fmt::format("{} does not exist, and user {} may not create it in {}", home.native(),
                        geteuid(), existing.native()),
            "choose another home with --home or MSB_HOME"};
  }
  if (access(existing.c_str(), W_OK) != 0) {
    return {"home", Status::kWarning,
            fmt::format("{} cannot be written by user {}", home.native(), geteuid()),
            "snapshots in it can be listed, verified and exported, and be booted from another home "
            "by their paths; to make new ones, change its owner or mode, or choose another home "
            "with --home or MSB_HOME"};
  }
  if (existing != home) {
    return {"home", Status::kOk,
            fmt::format("{} does not exist yet; the first command that needs it creates it",
                        home.native())};
  }
  return {"home", Status::kOk, home.native()};
}

Check CheckSpace(const Client& client) {
  const fs::path existing = NearestExisting(client.config().snapshots_dir);
  std::error_code error;
  const fs::space_info space = fs::space(existing, error);
  if (error) {
    return {"space", Status::kProblem, fmt::format("{}: {}", existing.native(), error.message()),
            "check that the path is right and its file system is mounted"};
  }
  const std::string message = fmt::format("{} free of {} in {}", HumanBytes(space.available),
                                          HumanBytes(space.capacity), existing.native());
  if (space.capacity == 0 || space.available >= kLittleSpace) {
    return {"space", Status::kOk, message};
  }
  return {"space", Status::kWarning, message,
          "remove snapshots (msb-snapshot remove) or sandboxes, or set --home to a larger disk"};
}

Check CheckIndex(Session& session, std::vector<std::string>& warnings) {
  try {
    const std::size_t count =
        Snapshot::List(Context::Background().WithCancel(Interrupted()), session.client()).size();
    if (warnings.empty()) {
      return {"index", Status::kOk, Count(count, "snapshot")};
    }
    return {"index", Status::kWarning,
            fmt::format("{}; {}", Count(count, "snapshot"), warnings.front()),
            "see the message; 'msb-snapshot reindex' rebuilds the rows"};
  } catch (const Error& e) {
    return {"index", Status::kProblem, e.what(), "see the message"};
  }
}

Check CheckBackend(const std::string& name) {
  if (name == "local") {
    return {"backend", Status::kOk,
            "local: sandboxes are disks without a VM (choose another with --backend)"};
  }
  return {"backend", Status::kOk, name};
}

Check CheckKvm(const std::string& used_backend) {
  const bool needed = used_backend != "local";
  if (access("/dev/kvm", F_OK) != 0) {
    return {"kvm", needed ? Status::kWarning : Status::kOk, "/dev/kvm does not exist",
            needed ? "QEMU emulates the processor, which is slow; enable virtualization in the "
                     "firmware, or nested virtualization on the host"
                   : ""};
  }
  if (access("/dev/kvm", R_OK | W_OK) != 0) {
    return {"kvm", needed ? Status::kWarning : Status::kOk,
            fmt::format("user {} may not use /dev/kvm", geteuid()),
            "add the user to the group kvm: usermod -aG kvm USER"};
  }
  return {"kvm", Status::kOk, "/dev/kvm can be used"};
}

// Checks a program that only one backend needs.
Check CheckProgram(bool needed, std::string_view backend, std::string name, const fs::path& program,
                   std::string advice) {
  const Status failure = needed ? Status::kProblem : Status::kOk;
  const fs::path found = FindProgram(program);
  if (found.empty()) {
    return {std::move(name), failure,
            fmt::format("{} is not installed{}", program.native(),
                        needed ? "" : fmt::format("; only the {} backend needs it", backend)),
            needed ? std::move(advice) : std::string()};
  }
  const auto version = VersionOf(found);
  if (!version) {
    return {std::move(name), failure, fmt::format("{} does not run", found.native()),
            needed ? std::move(advice) : std::string()};
  }
  return {std::move(name), Status::kOk, fmt::format("{} ({})", found.native(), *version)};
}

Check CheckQemu(Session& session) {
  const fs::path& configured = session.client().config().qemu.binary;
  return CheckProgram(session.BackendName() == "qemu", "qemu", "qemu",
                      configured.empty() ? fs::path("qemu-system-x86_64") : configured,
                      "install it: apt-get install qemu-system-x86");
}

Check CheckRuntime(Session& session) {
  const char* path = std::getenv("MSB_PATH");
  return CheckProgram(session.BackendName() == "microsandbox", "microsandbox", "runtime",
                      path == nullptr || *path == '\0' ? "msb" : path,
                      "install the microsandbox runtime, or set MSB_PATH to its msb program");
}

int Diagnose(Session& session) {
  std::vector<std::string> warnings;
  session.log = [&](std::string_view message) { warnings.emplace_back(message); };
  const Client& client = session.client();
  const std::string backend = session.BackendName();
  const std::vector<Check> checks = {CheckHome(client),    CheckIndex(session, warnings),
                                     CheckSpace(client),   CheckBackend(backend),
                                     CheckKvm(backend),    CheckQemu(session),
                                     CheckRuntime(session)};
  Report report{{{"version", Version()}, {"ok", true}, {"checks", Json::array()}},
                fmt::format("msb-snapshot {}\n", Version())};
  for (Check check : checks) {
    check.message = InWordsOfProgram(std::move(check.message));
    check.advice = InWordsOfProgram(std::move(check.advice));
    if (check.status == Status::kProblem) report.document["ok"] = false;
    report.document["checks"].push_back(
        {{"name", check.name},
         {"status", NameOf(check.status)},
         {"message", check.message},
         {"advice", check.advice.empty() ? Json(nullptr) : Json(check.advice)}});
    const std::string status = fmt::format("{:<8}", NameOf(check.status));
    report.text += fmt::format("{} {:<8} {}\n", Colored(ColorOf(check.status), status), check.name,
                               Printable(check.message));
    if (!check.advice.empty()) report.text += fmt::format("{:>18}{}\n", "", check.advice);
  }
  session.Print(report);
  return report.document["ok"].get<bool>() ? kSuccess : kFailure;
}

}  // namespace

void AddDoctor(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const doctor =
      AddCommand(app, invocation, "doctor",
                 "Check the home, the disk, the backend, KVM, QEMU and the runtime");
  doctor->callback([&] { invocation.run = [&session] { return Diagnose(session); }; });
}

}  // namespace msb::program
