// SPDX-License-Identifier: Apache-2.0
//
// Runs code as in a container: in a PID namespace of its own.

#ifndef MSB_TESTS_SUPPORT_PID_NAMESPACE_H_
#define MSB_TESTS_SUPPORT_PID_NAMESPACE_H_

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>

namespace msb::test {

// A process that calls a function in a PID namespace of its own, with a /proc that matches it.
class ContainerProcess {
 public:
  explicit ContainerProcess(const std::function<void()>& function);
  ContainerProcess(const ContainerProcess&) = delete;
  ContainerProcess& operator=(const ContainerProcess&) = delete;
  ~ContainerProcess();  // Kills it.

  // Waits for the process. Returns an empty string if the function returned, "killed" if the
  // process was killed, or else the message of what was thrown or could not be set up.
  std::string Wait();
  // Kills all processes of the namespace.
  void Kill();

 private:
  pid_t outer_ = -1;
  int result_ = -1;  // Read end of the pipe that carries the outcome.
};

// Returns why PID namespaces cannot be used here, or nothing if they can.
std::optional<std::string> WhyNoPidNamespaces();

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_PID_NAMESPACE_H_
