// A Client is a home directory, its index and a VMM backend. All calls of the library take one as
// their last argument; the default is the one that the environment describes.
//
// A Client is safe to use from several threads, and several processes, the microsandbox runtime
// among them, may share a home. Copies of a Client are the same client. Artifacts, handles and
// sandboxes remember the client they came from.

#ifndef MSB_CLIENT_H_
#define MSB_CLIENT_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "msb/export.h"
#include "msb/vmm/backend.h"

namespace msb {

// Which generation of artifact Snapshot::Create writes; docs/formats.md describes them.
enum class Generation {
  kAuto,        // By the home: kManifest where its msb.db is from before 0.6.7, else kDescriptor.
  kManifest,    // manifest.json, releases 0.5.5 to 0.6.6; every release up to 0.7.2 reads it.
  kDescriptor,  // snapshot.json, releases 0.6.7 to 0.6.18; 0.7 reads it.
};

// The virtual machine of the qemu backend: a PC whose disk is on virtio-blk (/dev/vda in Linux) and
// whose first serial port is written to console.log in the sandbox's directory. KVM is used where a
// guest really runs under it, which is tried once and remembered, else emulation. A guest that
// reboots ends.
struct QemuConfig {
  std::filesystem::path binary = {};  // Default: qemu-system-x86_64 on the PATH.
  std::filesystem::path kernel = {};  // Direct kernel boot; default: the disk is bootable.
  std::filesystem::path initrd = {};
  std::string append = {};                        // The kernel's command line.
  std::uint32_t memory_mib = 512;                 // Of sandboxes made without WithMemory, MiB.
  std::uint32_t cpus = 1;                         // Of sandboxes made without WithCPUs.
  std::vector<std::string> extra_arguments = {};  // Appended to QEMU's command line.
};

// Takes one warning, a line without its end. Called from any thread that is in a call of the API.
using LogFunction = std::function<void(std::string_view message)>;

struct MSB_EXPORT Config {
  // The home directory; default: ~/.microsandbox. The other directories default to those below it.
  std::filesystem::path home = {};
  std::filesystem::path snapshots_dir = {};  // Default: home/snapshots.
  std::filesystem::path sandboxes_dir = {};  // Default: home/sandboxes.
  std::filesystem::path cache_dir = {};      // Default: home/cache.

  // "local" (sandboxes are disks, there is no VM), "microsandbox", "qemu", or a backend of your
  // own. Default, for an empty string: microsandbox where the home has a db/msb.db when the client
  // is made, else local.
  std::variant<std::string, std::shared_ptr<vmm::Backend>> backend = std::string();

  Generation generation = Generation::kAuto;

  // The format of new sandboxes' uppers, on local and qemu. A qcow2 upper is an empty overlay on
  // the image or the snapshot, made in no time whatever their size; a raw one is a copy. Default:
  // kQcow2 on qemu; on local the format of the image, or of the snapshot's upper.
  std::optional<DiskFormat> upper_format = std::nullopt;

  // The runtime's program, with which the microsandbox backend boots and ends sandboxes; releases
  // 0.5.5 to 0.7.2 are known. Default: what MSB_PATH names when it is needed, then msb on the PATH.
  std::filesystem::path msb_path = {};

  QemuConfig qemu = {};

  // Where warnings go; default: standard error. It may call the library; what it throws is ignored.
  LogFunction log = {};

  // Reads MSB_HOME (home, verbatim) and MSB_BACKEND (backend).
  static Config FromEnvironment();
};

namespace internal {
struct ClientState;
}

class MSB_EXPORT Client {
 public:
  // Touches nothing on disk. kInvalidConfig: no home directory, or an unknown backend.
  explicit Client(Config config = Config::FromEnvironment());

  // The client of Config::FromEnvironment(), made on first use.
  static Client& Default();

  // With every default filled in but generation, which is looked up by each Create.
  const Config& config() const;

  // What it asks for its sandboxes. It may outlive the client, and a backend of your own may leave
  // disks and records to it; docs/backends.md shows how.
  std::shared_ptr<vmm::Backend> backend() const;

 private:
  friend struct internal::ClientState;

  std::shared_ptr<internal::ClientState> state_;
};

}  // namespace msb

#endif  // MSB_CLIENT_H_
