// SPDX-License-Identifier: Apache-2.0
//
// Starts programs that are not children of this process. They leave no zombies for this process to
// reap, and any process can wait for them and end them by their identity (process.h).

#ifndef MSB_SRC_BASE_SPAWN_H_
#define MSB_SRC_BASE_SPAWN_H_

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "src/base/file.h"
#include "src/base/process.h"

namespace msb::base {

// A Leash ends a program when this process ends, for whatever reason: the program holds one end of
// a pipe, and the kernel sends it SIGKILL when the other end, which only this process holds, is
// closed (fcntl(2), O_ASYNC with F_SETSIG). A Leash is for one program.
class Leash {
 public:
  Leash();
  Leash(Leash&&) noexcept = default;
  Leash& operator=(Leash&&) noexcept = default;
  // Ends the program that was spawned with this leash, unless LetGo was called.
  ~Leash() = default;

  // Lets the program outlive this process.
  void LetGo();

 private:
  friend ProcessIdentity Spawn(
      const struct Program& program, const Leash& leash,
      const std::function<void(const ProcessIdentity& process)>& before_program);

  UniqueFd held_;  // Held by this process alone.
  // Inherited by the program. Its file status flags, which both processes share, tie the program to
  // held_.
  UniqueFd program_;
};

// A Program describes a program to start.
struct Program {
  std::filesystem::path path = {};          // Path of the executable.
  std::vector<std::string> arguments = {};  // Without argv[0].
  std::filesystem::path directory = {};     // The working directory. Default: that of this process.
  int output = -1;  // The standard output and standard error; -1: /dev/null.
  // Descriptors that the program gets, under the same numbers, besides its standard streams. Must
  // not contain 0 to 2. Before Linux 5.11, the program also gets the descriptors that were opened
  // without O_CLOEXEC.
  std::vector<int> inherited = {};
};

// Starts the program in a session of its own, tied to this process by leash from its first moment,
// and returns its identity. Calls before_program, if set, when the process exists but does not run
// the program yet. If before_program throws, the process ends.
// Throws kInvalidConfig if path is not a program that may be executed.
// Throws kIO if the process cannot be created, or is killed before it runs the program.
ProcessIdentity Spawn(
    const Program& program, const Leash& leash,
    const std::function<void(const ProcessIdentity& process)>& before_program = {});

// Returns an empty, nameless file in memory, for the output or the input of a program.
UniqueFd MakeMemoryFile();

// Returns the path of an executable: name itself if it contains a "/", else the first executable of
// that name on the PATH, or an empty path if there is none. Ignores empty entries of the PATH.
std::filesystem::path FindProgram(const std::filesystem::path& name);
// Returns true if path is a regular file that this process may execute.
bool IsProgram(const std::filesystem::path& path);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_SPAWN_H_
