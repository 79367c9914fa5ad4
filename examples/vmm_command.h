// SPDX-License-Identifier: Apache-2.0
//
// The command line of a VMM for one sandbox, with placeholders filled in.

#ifndef MSB_EXAMPLES_VMM_COMMAND_H_
#define MSB_EXAMPLES_VMM_COMMAND_H_

#include <cstddef>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "msb/vmm/backend.h"

namespace example {

using msb::vmm::SandboxRecord;

// Returns the argument of QEMU's -blockdev for a sandbox's disk, as a node named "disk". It names
// every file of a qcow2 disk, so that QEMU does not follow the backing files that the headers name.
inline std::string BlockNode(const SandboxRecord& sandbox) {
  std::string below = "null";
  const auto stack = [&](const msb::Disk& disk, const std::string& options) {
    std::ostringstream node;
    node << "{\"driver\":\"" << msb::ToString(disk.format) << "\"," << options
         << ",\"file\":{\"driver\":\"file\"," << options << ",\"filename\":" << disk.path << "}";
    if (disk.format == msb::DiskFormat::kQcow2) node << ",\"backing\":" << below;
    below = node.str() + "}";
  };
  for (auto file = sandbox.backing.rbegin(); file != sandbox.backing.rend(); ++file) {
    stack(file->disk, "\"read-only\":true");
  }
  stack(*sandbox.upper, "\"read-only\":false");
  return below.insert(1, "\"node-name\":\"disk\",");
}

// Returns the command line for a sandbox, with these placeholders replaced: {name} by the sandbox's
// name, {dir} by its directory, {disk} by the path of its writable disk, {blockdev} by the argument
// of QEMU's -blockdev for that disk, {cpus} by the number of CPUs (default: 1), and {memory} by the
// memory in MiB (default: 512).
inline std::vector<std::string> Fill(const std::vector<std::string>& command,
                                     const SandboxRecord& sandbox) {
  std::map<std::string, std::string> values = {{"{name}", sandbox.name},
                                               {"{dir}", sandbox.upper->path.parent_path()},
                                               {"{disk}", sandbox.upper->path},
                                               {"{blockdev}", BlockNode(sandbox)},
                                               {"{cpus}", "1"},
                                               {"{memory}", "512"}};
  for (const std::string key : {"cpus", "memory"}) {
    const auto label = sandbox.labels.find("vmm." + key);
    if (label != sandbox.labels.end()) values["{" + key + "}"] = label->second;
  }
  std::vector<std::string> words;
  for (const std::string& word : command) {
    std::string& filled = words.emplace_back();
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t end = word[at] == '{' ? word.find('}', at) : std::string::npos;
      const auto value = values.find(word.substr(at, end == std::string::npos ? 0 : end + 1 - at));
      filled += value == values.end() ? word.substr(at, 1) : value->second;
      at = value == values.end() ? at + 1 : end + 1;
    }
  }
  return words;
}

}  // namespace example

#endif  // MSB_EXAMPLES_VMM_COMMAND_H_
