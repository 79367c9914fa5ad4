// SPDX-License-Identifier: Apache-2.0
//
// A Client represents a home directory, its index and a VMM backend. Functions take a const Client&
// as a trailing argument; the default is Client::Default(), which is configured by environment
// variables.
//
// Threads may share a Client; only an assignment to it needs external synchronization. Several
// processes, including the microsandbox runtime, may share a home. Copies of a Client represent the
// same client. Artifacts, handles and sandboxes keep the client that they came from alive, so a
// temporary Client may be passed to the functions that return them.
//
// The guarantees in these headers fully hold on local file systems such as ext4, XFS, Btrfs and
// tmpfs. Other file systems weaken some of them; docs/environments.md lists all cases:
//
//   * Where locks (flock(2)) do not reach other hosts (NFS) or other mounts (FUSE, overlayfs),
//     calls on different hosts or mounts that replace or remove the same snapshot or sandbox do not
//     exclude each other. Where there are no locks at all, only one process at a time may change a
//     home.
//   * Where directories cannot be flushed, a crash of the machine may undo the last operations.
//   * A process that is killed may leave hidden directories (.msb-*) behind. The next call that
//     creates or removes something in the same directory deletes them. If the file system has no
//     locks, or if it is not local and the process ran on another host, on another mount or before
//     a reboot, that call deletes them only if they have not changed for 24 hours.
//
// A forked process can use the client of its parent, even if another thread was in a call when the
// process was forked: fork() waits up to 2 s until no thread is in the middle of a change to shared
// state. If a thread still is after that, calls in the new process that use the index throw kIO
// until the process executes a program (execve(2)). Calls that were in progress continue only in
// the parent. The new process does not inherit their locks, and virtual machines that are bound to
// the parent end with it, even if the new process continues.
//
// The library never opens a descriptor with the number of a standard stream (0 to 2), even if the
// program has closed these streams.

#ifndef MSB_CLIENT_H_
#define MSB_CLIENT_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "msb/export.h"
#include "msb/vmm/backend.h"
#include "msb/vmm/qemu.h"

namespace msb {

// The generation of artifact that Snapshot::Create and Snapshot::Squash write. docs/formats.md
// describes the generations.
enum class Generation {
  // kManifest if the home has the msb.db of a release before 0.6.9, else kDescriptor.
  kAuto,
  // manifest.json of releases 0.5.5 to 0.6.6. Every release up to 0.7.2 reads it; releases from
  // 0.6.7 on only if the file system inside the disk is ext4.
  kManifest,
  // snapshot.json as releases 0.6.9 to 0.6.18 write it. 0.7 reads it; 0.6.7 and 0.6.8 do not.
  kDescriptor,
};

// Receives one warning, a line without a newline. It is called on the thread whose API call caused
// the warning, when that call returns or throws, with no lock of the library held. Several threads
// may call it at the same time. It may call the library, even for the same sandbox or snapshot;
// the warnings of such a nested call follow when that call ends. A warning that no API call causes
// is passed on at once. Exceptions that the function throws are ignored.
//
// Each warning that a file system lacks locks, atomic renames or flushes of directories is logged
// once in each process, through the client that was created last.
using LogFunction = std::function<void(std::string_view message)>;

// The configuration of a Client. When the client is created, a leading "~/" in the paths of
// directories is expanded, and relative paths are made absolute.
struct MSB_EXPORT Config {
  // The home directory. Default: ~/.microsandbox. It may be moved or copied while no call uses it.
  // Symbolic links to it, or to directories in it, lead to the same home. Paths that the library
  // returns begin with the home as it is spelled here. An absent home or directory counts as empty.
  // But if it is a link to an absent directory, such as a volume that is not mounted, calls that
  // need it throw kIO.
  //
  // The paths of the home and of the directories below should be UTF-8. Snapshot::Create throws
  // kInvalidArgument if the disk is qcow2 and the path of the new snapshot is not UTF-8. Import and
  // Pull throw kUnsupportedOperation if they receive the image of a microsandbox runtime and the
  // path of the cache is not UTF-8, or contains a quotation mark or a line break.
  std::filesystem::path home = {};
  std::filesystem::path snapshots_dir = {};  // Default: home/snapshots.
  std::filesystem::path sandboxes_dir = {};  // Default: home/sandboxes.
  std::filesystem::path cache_dir = {};      // Default: home/cache.

  // "local" (sandboxes are disks without a VM), "microsandbox", "qemu", or a backend of the caller.
  // An empty string means the default. Default: "microsandbox" if the home has a db/msb.db when the
  // client is created, else "local".
  std::variant<std::string, std::shared_ptr<vmm::Backend>> backend = std::string();

  // The generation of new artifacts. Default: kAuto.
  Generation generation = Generation::kAuto;

  // The format of the writable disks (uppers) of new sandboxes on the local and qemu backends. A
  // qcow2 upper is an empty overlay that is backed by the image or the snapshot, and is created in
  // constant time, regardless of their size. A raw upper is a copy. On a file system without hard
  // links, a qcow2 upper takes as long as a copy too (docs/environments.md). Default: kQcow2 on
  // qemu; on local, the format of the image or of the snapshot's upper.
  std::optional<DiskFormat> upper_format = std::nullopt;

  // The program of the runtime, which the microsandbox backend uses to boot and end sandboxes.
  // Releases 0.5.5 to 0.7.2 are supported. Default: the value that MSB_PATH has when the program is
  // needed, or msb on the PATH if MSB_PATH is not set.
  std::filesystem::path msb_path = {};

  // Machine settings of the qemu backend. QemuConfig describes how they relate to the settings that
  // are recorded with a sandbox.
  QemuConfig qemu = {};

  // Receives warnings. Default: a function that writes them to standard error.
  LogFunction log = {};

  // Returns a Config with home set to MSB_HOME, verbatim, and backend set to MSB_BACKEND. A
  // variable that is not set, or empty, leaves the default.
  [[nodiscard]] static Config FromEnvironment();
};

namespace internal {
struct ClientState;
}

class MSB_EXPORT Client {
 public:
  // Creates a client. Changes nothing on disk.
  // Throws kInvalidConfig if no home directory can be determined, or if the backend is unknown or
  // null.
  // Throws kIO if the backend is the default one, and the home's db/msb.db either cannot be looked
  // up or is neither a regular file nor a symbolic link to one.
  explicit Client(Config config = Config::FromEnvironment());
  // A copy is the same client, and so is what a move leaves.
  Client(const Client&) = default;
  Client(Client&& other) noexcept { *this = other; }
  Client& operator=(const Client&) = default;
  Client& operator=(Client&& other) noexcept { return *this = std::as_const(other); }
  ~Client() = default;

  // Returns the client of Config::FromEnvironment(). It is created on first use and never
  // destroyed, so destructors of static objects and std::atexit handlers can use it.
  // Throws what the constructor throws; the next call then tries again.
  static Client& Default();

  // Returns the configuration with absolute paths and the defaults filled in. The fields
  // generation, upper_format, msb_path and qemu are as given, because their defaults are determined
  // by each call that needs them.
  [[nodiscard]] const Config& config() const;

  // Returns the backend, which may outlive the client. A backend of the caller may delegate disks
  // and records to the backend of another client; docs/backends.md shows how.
  [[nodiscard]] std::shared_ptr<vmm::Backend> backend() const;

 private:
  friend struct internal::ClientState;

  std::shared_ptr<internal::ClientState> state_;
};

}  // namespace msb

#endif  // MSB_CLIENT_H_
