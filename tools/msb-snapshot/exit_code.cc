// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/exit_code.h"

#include <algorithm>

namespace msb::program {

const std::vector<ExitCode>& ExitCodes() {
  static const std::vector<ExitCode> codes = {
      {kSuccess, "", "The command succeeded."},
      {kFailure, "", "Several names failed with different errors, or doctor found a problem."},
      {kUsage, "", "The command line is invalid."},
      {10, "SandboxNotFound", "The sandbox does not exist."},
      {11, "SandboxAlreadyExists", "The name of the new sandbox is taken."},
      {12, "SandboxStillRunning", "The sandbox is running, but must be stopped."},
      {13, "ImageNotFound", "The image does not exist."},
      {14, "SnapshotNotFound", "The snapshot, or one that it needs, does not exist."},
      {15, "SnapshotAlreadyExists", "The destination of the new snapshot exists."},
      {16, "SnapshotSandboxRunning", "The sandbox is running, or its disk is in use."},
      {17, "SnapshotImageMissing", "The image of the snapshot is not in the cache."},
      {18, "SnapshotIntegrity", "A snapshot, an archive or data from a registry is damaged."},
      {19, "IO", "The operating system or another program failed."},
      {20, "InvalidConfig", "A name or a configuration is invalid, or the VM does not start."},
      {21, "InvalidArgument", "Arguments contradict each other or are out of range."},
      {22, "InvalidHandle", "Not used by this program."},
      {23, "Cancelled", "The command was cancelled without a signal, such as by exec --timeout."},
      {24, "UnsupportedOperation", "The backend or the snapshot does not support this."},
      {25, "Internal", "This is a bug in msb, or a database has an unexpected schema."},
      {26, "SnapshotHasChildren", "Other snapshots or sandboxes depend on the snapshot."},
      {27, "RegistryUnauthorized",
       "The registry rejects the credentials, or requires credentials."},
      {28, "RegistryUnavailable", "The registry cannot be reached, or fails."},
      {129, "", "SIGHUP (the terminal was closed) cancelled the command."},
      {130, "", "SIGINT (Ctrl-C) cancelled the command."},
      {kBrokenPipe, "", "The reader of the output closed the pipe."},
      {143, "", "SIGTERM cancelled the command."},
  };
  return codes;
}

int ExitCodeOf(ErrorKind kind) {
  const std::vector<ExitCode>& codes = ExitCodes();
  const auto found = std::ranges::find(codes, ErrorKindName(kind), &ExitCode::name);
  return found == codes.end() ? kFailure : found->code;
}

}  // namespace msb::program
