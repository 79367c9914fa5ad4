// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_nodes.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

namespace msb::vmm {

using base::Json;

std::string NodeOf(const std::string& overlay) { return std::filesystem::path(overlay).stem(); }

std::string FileNodeOf(const std::string& node) { return node + "-file"; }

std::array<Json, 2> NodesOf(const std::string& node, const BackingFile& file, bool read_only,
                            const Json& backing) {
  Json protocol = {{"driver", "file"},
                   {"node-name", FileNodeOf(node)},
                   {"filename", file.name},
                   {"read-only", read_only},
                   {"discard", "unmap"}};
  // QEMU opens the file again, for reading only, when a live snapshot has put an overlay on it.
  if (!read_only) protocol["auto-read-only"] = true;
  Json image = {{"driver", ToString(file.disk.format)},
                {"node-name", node},
                {"file", FileNodeOf(node)},
                {"read-only", read_only},
                {"discard", "unmap"}};
  if (file.disk.format == DiskFormat::kQcow2) image["backing"] = backing;
  return {std::move(protocol), std::move(image)};
}

std::vector<std::string> DiskArguments(const SandboxRecord& sandbox) {
  std::vector<std::string> arguments;
  const auto add = [&](const std::string& node, const BackingFile& file, bool read_only,
                       const Json& backing) {
    for (const Json& description : NodesOf(node, file, read_only, backing)) {
      arguments.emplace_back("-blockdev");
      arguments.push_back(description.dump());
    }
  };
  Json below;  // null: no backing file
  for (std::size_t i = sandbox.backing.size(); i-- > 0;) {
    const std::string node = fmt::format("backing{}", i);
    add(node, sandbox.backing[i], /*read_only=*/true, below);
    below = node;
  }
  add(kUpperNode, {sandbox.upper->path.filename(), *sandbox.upper}, /*read_only=*/false, below);
  arguments.insert(arguments.end(), {"-device", fmt::format("virtio-blk-pci,drive={},id={}",
                                                            kUpperNode, kDiskDevice)});
  return arguments;
}

}  // namespace msb::vmm
