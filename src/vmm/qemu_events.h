// SPDX-License-Identifier: Apache-2.0
//
// Records in a file the events by which QEMU reports the end of a guest, so that no process needs
// to be connected to QEMU when the guest ends.
//
// QEMU gets a second QMP monitor on a pair of files in the sandbox's directory (-chardev pipe). The
// input is a FIFO that holds the command that enables events; the output is a regular file, to
// which QEMU appends every event. The last SHUTDOWN event shows why the guest ended.

#ifndef MSB_SRC_VMM_QEMU_EVENTS_H_
#define MSB_SRC_VMM_QEMU_EVENTS_H_

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/vmm/backend.h"
#include "src/base/file.h"

namespace msb::vmm {

// Creates the two files. The returned descriptor must be kept open until EventLogHasBegun returns
// true.
base::UniqueFd MakeEventLog(int dir);
// Removes the FIFO, which QEMU keeps open.
void RemoveEventInput(const std::filesystem::path& dir);
// Removes both files, if they exist.
void RemoveEventLog(const std::filesystem::path& dir);
// Returns QEMU's arguments for the two files.
std::vector<std::string> EventLogArguments();
// Returns true once QEMU records events.
bool EventLogHasBegun(int dir);

// Returns how the guest ended, according to the events of a QEMU process that ended in order:
// kCrashed if the guest panicked or was reset, the host failed, or QEMU reported no shutdown;
// otherwise kStopped, for example if the guest powered off or QEMU received the command "quit".
// Returns nullopt if there is no event log, as for a VM that an earlier version of this library
// booted.
std::optional<SandboxStatus> EndAccordingToEvents(int dir);

// Does the same for the text of an event log, which may begin in the middle of a line.
SandboxStatus EndAccordingTo(std::string_view events);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_EVENTS_H_
