// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/wording.h"

#include <array>
#include <string_view>

namespace msb::program {
namespace {

struct Wording {
  std::string_view library;
  std::string_view program;
};

// A longer text precedes the texts that are part of it.
constexpr std::array kWordings = {
    Wording{"replace it with WithReplace", "replace it with --replace"},
    Wording{"set force to replace it", "replace it with --force"},
    Wording{"remove these first, or use force", "remove these first, or use --force"},
    Wording{"remove them first, or use force", "remove them first, or use --force"},
    Wording{"with Remove and force", "with 'msb-snapshot rm --force'"},
    Wording{"with Snapshot::Import", "with 'msb-snapshot import'"},
    Wording{"that Snapshot::Export wrote", "that 'msb-snapshot export' wrote"},
    Wording{"as Snapshot::Export wrote it", "as 'msb-snapshot export' wrote it"},
    Wording{"with WithImage", "with 'msb-snapshot sandbox create --image'"},
    Wording{"with WithSnapshot", "with 'msb-snapshot sandbox create --snapshot'"},
    Wording{"call Reindex", "run 'msb-snapshot reindex'"},
    Wording{"with Snapshot::Squash", "with 'msb-snapshot squash'"},
    Wording{"correct the QemuConfig of the sandbox or the client: binary, kernel, initrd, append, "
            "memory_mib, cpus, extra_arguments",
            "correct --kernel, --initrd, --append, --memory, --cpus or --qemu-arg of 'msb-snapshot "
            "sandbox create'"},
    Wording{"QemuConfig::kernel", "--kernel"},
    Wording{"Config::qemu.kernel", "--kernel"},
    Wording{"Config::qemu.initrd", "--initrd"},
    Wording{"choose a larger oci_upper_size_mib", "choose a larger --disk-size"},
    Wording{"LiveSnapshot::kAuto", "--consistency auto"},
    Wording{"set SnapshotCreateOptions::live", "use --live"},
    Wording{"set RegistryOptions::username and password (msb-snapshot: --username and "
            "--password-stdin)",
            "give --username and --password-stdin"},
    Wording{"RegistryOptions::ca_file (msb-snapshot: --ca-file)", "--ca-file"},
    Wording{"RegistryOptions::ca_file", "--ca-file"},
    Wording{"RegistryOptions::plain_http", "--plain-http"},
    Wording{"RegistryOptions has a username but no password; set both",
            "--username needs a password; give --password-stdin"},
    Wording{"RegistryOptions are invalid: connections", "--connections"},
    Wording{"RegistryOptions are invalid: retries", "--retries"},
    Wording{"RegistryOptions are invalid: plain_http and ca_file", "--plain-http and --ca-file"},
    Wording{"'since' is the exported snapshot", "--since is the exported snapshot"},
    Wording{"descend from the snapshot in 'since'", "descend from the snapshot in --since"},
    Wording{"set 'since' to", "set --since to"},
    Wording{"without 'since'", "without --since"},
    Wording{"(deadline exceeded); set a longer deadline",
            "(deadline exceeded); set a longer --timeout"},
    Wording{"MSB_HOME or Config::home", "MSB_HOME or --home"},
    Wording{"MSB_PATH or Config::msb_path", "MSB_PATH"},
    Wording{"Config::msb_path", "MSB_PATH"},
};

void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

}  // namespace

std::string InWordsOfProgram(std::string message) {
  for (const Wording& wording : kWordings) ReplaceAll(message, wording.library, wording.program);
  return message;
}

}  // namespace msb::program
