// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/guest_script.h"

#include <fmt/format.h>

#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::vmm {
namespace {

using base::Quoted;

// Both parts of the script are constant. Everything that differs reaches them as positional
// parameters, and is expanded only in double quotes or compared with constants. They use the shell
// as POSIX specifies it, so that dash, bash and busybox can run them. Their variables begin with
// msb_, so that no variable of the environment is changed.
constexpr int kFailed = 125;

// Parameters: TOKEN PART-2 USER, and those of the second part from its second on. setpriv becomes
// the command, so that the command can be killed by the PID that the agent reports. Busybox has a
// setpriv that cannot switch users, and a su that can.
constexpr const char* kSwitchUser = R"(
msb_token=$1 msb_part=$2 msb_user=$3
shift 3
msb_fail() { printf '%s %s\n' "$msb_token" "$1" >&2; exit 125; }
msb_uid=$(id -u -- "$msb_user" 2>/dev/null) || msb_fail user
msb_gid=$(id -g -- "$msb_user" 2>/dev/null) || msb_fail user
msb_user=$(id -un -- "$msb_user" 2>/dev/null) || msb_fail user
msb_entry=
while IFS= read -r msb_line; do
  case $msb_line in "$msb_user":*) msb_entry=$msb_line; break ;; esac
done 2>/dev/null </etc/passwd
[ -n "$msb_entry" ] || msb_entry=$(getent passwd "$msb_uid" 2>/dev/null)
msb_home=${msb_entry%:*}
msb_home=${msb_home##*:}
export HOME="${msb_home:-/}" USER="$msb_user" LOGNAME="$msb_user"
msb_own=$(id -u)
[ "$msb_own" != "$msb_uid" ] || exec /bin/sh -c "$msb_part" sh "$msb_token" "$@"
[ "$msb_own" = 0 ] || msb_fail root
if setpriv --reuid "$msb_uid" --regid "$msb_gid" --init-groups /bin/sh -c : 2>/dev/null; then
  exec setpriv --reuid "$msb_uid" --regid "$msb_gid" --init-groups \
    /bin/sh -c "$msb_part" sh "$msb_token" "$@"
fi
command -v su >/dev/null 2>&1 || msb_fail su
exec su -s /bin/sh -c "$msb_part" -- "$msb_user" sh "$msb_token" "$@"
)";

// Parameters: TOKEN DIRECTORY PATH COUNT, that many variables as NAME=VALUE, and the command. env
// takes everything before the first parameter without "=" as a variable, so the shell sets the
// variables for a program with one in its name.
constexpr const char* kRunCommand = R"(
msb_token=$1 msb_directory=$2 msb_path=$3 msb_count=$4
shift 4
msb_fail() { printf '%s %s\n' "$msb_token" "$1" >&2; exit 125; }
[ -z "$msb_directory" ] || cd "$msb_directory" 2>/dev/null || msb_fail directory
msb_env=$(command -v env) || msb_env=
[ -z "$msb_path" ] || PATH=$msb_path
eval "msb_program=\${$((msb_count + 1))}"
msb_found=
case $msb_program in
  */*) [ ! -f "$msb_program" ] || [ ! -x "$msb_program" ] || msb_found=1 ;;
  *)
    set -f
    msb_ifs=$IFS IFS=:
    for msb_dir in $PATH; do
      msb_file=${msb_dir:-.}/$msb_program
      if [ -f "$msb_file" ] && [ -x "$msb_file" ]; then msb_found=1; break; fi
    done
    IFS=$msb_ifs ;;
esac
[ -n "$msb_found" ] || msb_fail program
case $msb_count$msb_program in
  0-*) ;;
  0*) exec "$@" ;;
  *=*)
    while [ "$msb_count" -gt 0 ]; do
      export "$1"
      shift
      msb_count=$((msb_count - 1))
    done
    exec "$@" ;;
esac
[ -n "$msb_env" ] || msb_fail env
exec "$msb_env" -- "$@"
)";

}  // namespace

bool NeedsScript(const ExecOptions& options) {
  return !options.env.empty() || !options.cwd.empty() || !options.user.empty();
}

std::vector<std::string> ScriptArguments(const std::string& token,
                                         const std::vector<std::string>& command,
                                         const ExecOptions& options) {
  std::vector<std::string> arguments = {"-c"};
  if (options.user.empty()) {
    arguments.insert(arguments.end(), {kRunCommand, "sh", token});
  } else {
    arguments.insert(arguments.end(), {kSwitchUser, "sh", token, kRunCommand, options.user});
  }
  const auto path = options.env.find("PATH");
  arguments.insert(arguments.end(), {options.cwd, path == options.env.end() ? "" : path->second,
                                     std::to_string(options.env.size())});
  for (const auto& [name, value] : options.env)
    arguments.push_back(fmt::format("{}={}", name, value));
  arguments.insert(arguments.end(), command.begin(), command.end());
  return arguments;
}

void ThrowIfScriptFailed(const ExecResult& result, const std::string& token,
                         const std::string& sandbox, const std::string& program,
                         const ExecOptions& options) {
  if (result.exit_code != kFailed || !result.err.starts_with(token + " ")) return;
  const std::string_view reason =
      std::string_view(result.err).substr(token.size() + 1, result.err.size() - token.size() - 2);
  const auto fail = [&](ErrorKind kind, std::string_view what, std::string_view next_step) {
    base::Throw(kind, "cannot run '{}' in sandbox '{}': {}; {}", Quoted(program), sandbox, what,
                next_step);
  };
  if (reason == "user") {
    fail(ErrorKind::kInvalidConfig, fmt::format("its guest has no user '{}'", Quoted(options.user)),
         "create the user in the guest, or run the command as another one");
  } else if (reason == "directory") {
    fail(
        ErrorKind::kInvalidConfig,
        fmt::format("its guest has no directory '{}' that the user may enter", Quoted(options.cwd)),
        "create the directory in the guest, or correct the path");
  } else if (reason == "program") {
    fail(ErrorKind::kInvalidConfig, "its guest has no such program that the user may execute",
         "install the program in the guest, or correct the name or the PATH");
  } else if (reason == "root") {
    fail(ErrorKind::kUnsupportedOperation,
         fmt::format("its guest agent does not run as root, so it cannot become user '{}'",
                     Quoted(options.user)),
         "let the agent run as root, or leave out the user");
  }
  fail(ErrorKind::kInvalidConfig, fmt::format("its guest has no program '{}'", Quoted(reason)),
       "install util-linux and coreutils, or busybox, in the guest");
}

}  // namespace msb::vmm
