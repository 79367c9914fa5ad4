// SPDX-License-Identifier: Apache-2.0

#include <utility>

#include "msb/sandbox.h"

namespace msb {

SandboxOption WithImage(std::string reference) {
  return [reference = std::move(reference)](SandboxConfig& c) { c.image = reference; };
}
SandboxOption WithSnapshot(std::string path_or_name) {
  return [path_or_name = std::move(path_or_name)](SandboxConfig& c) { c.snapshot = path_or_name; };
}
SandboxOption WithMemory(std::uint32_t mib) {
  return [mib](SandboxConfig& c) { c.memory_mib = mib; };
}
SandboxOption WithCPUs(std::uint32_t cpus) {
  return [cpus](SandboxConfig& c) { c.cpus = cpus; };
}
SandboxOption WithOCIUpperSize(std::uint32_t mib) {
  return [mib](SandboxConfig& c) { c.oci_upper_size_mib = mib; };
}
SandboxOption WithQemu(QemuConfig machine) {
  return [machine = std::move(machine)](SandboxConfig& c) { c.qemu = machine; };
}
SandboxOption WithLabel(std::string key, std::string value) {
  return WithLabels({{std::move(key), std::move(value)}});
}
SandboxOption WithLabels(std::map<std::string, std::string> labels) {
  return [labels = std::move(labels)](SandboxConfig& c) {
    for (const auto& [key, value] : labels) c.labels[key] = value;
  };
}
SandboxOption WithReplace() {
  return [](SandboxConfig& c) { c.replace = true; };
}
SandboxOption WithDetached() {
  return [](SandboxConfig& c) { c.detached = true; };
}
StopOption WithStopTimeout(std::chrono::milliseconds timeout) {
  return [timeout](StopConfig& c) { c.timeout = timeout; };
}

}  // namespace msb
