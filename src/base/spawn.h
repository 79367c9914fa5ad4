// Starting a program that is no child of this process: it is waited for and ended by its identity,
// by this process or any other (process.h), and leaves no zombie for this one to reap.

#ifndef MSB_SRC_BASE_SPAWN_H_
#define MSB_SRC_BASE_SPAWN_H_

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "src/base/file.h"
#include "src/base/process.h"

namespace msb::base {

// Ends a program when this process ends, however that happens: the program holds one end of a pipe,
// and the kernel sends it SIGKILL when the other, which only this process holds, is closed
// (fcntl(2), O_ASYNC with F_SETSIG). For one program.
class Leash {
 public:
  Leash();
  Leash(Leash&&) noexcept = default;
  Leash& operator=(Leash&&) noexcept = default;
  // Ends the program that was spawned with it, unless it was let go.
  ~Leash() = default;

  // From here on the program outlives this process.
  void LetGo();

 private:
  friend ProcessIdentity Spawn(
      const struct Program& program, const Leash& leash,
      const std::function<void(const ProcessIdentity& process)>& before_program);

  UniqueFd held_;     // By this process alone.
  UniqueFd program_;  // The program inherits it; its flags, which are shared, are what ties.
};

struct Program {
  std::filesystem::path path = {};          // Of the executable.
  std::vector<std::string> arguments = {};  // Without the name it is called by.
  std::filesystem::path directory = {};     // That it runs in.
  int output = -1;  // Its standard output and standard error; -1: /dev/null.
  // Descriptors that it gets under the same numbers, and no others. None of the standard ones.
  std::vector<int> inherited = {};
};

// Starts the program in a session of its own, tied to this process by leash from its first moment.
// before_program is called when its process is there, but runs nothing of the program; when that
// throws, the process ends. kIO: it cannot be executed.
ProcessIdentity Spawn(
    const Program& program, const Leash& leash,
    const std::function<void(const ProcessIdentity& process)>& before_program = {});

// The same file under a number that is not that of a standard descriptor, as it may be if this
// process has closed those: a program has its own in their place.
UniqueFd AboveStandard(UniqueFd fd);

// An empty file that has no name: for a program's output, or with content to give to a program.
UniqueFd MakeMemoryFile();

// The path of an executable: name itself if it has a '/', else the first of that name on the PATH;
// empty if there is none.
std::filesystem::path FindProgram(const std::filesystem::path& name);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_SPAWN_H_
