// SPDX-License-Identifier: Apache-2.0
//
// A LiveDisk is the disk of a VM that runs, as its VMM sees it. A VMM that implements it supports
// live snapshots.

#ifndef MSB_SRC_VMM_LIVE_DISK_H_
#define MSB_SRC_VMM_LIVE_DISK_H_

#include <string>
#include <string_view>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/vmm/warn.h"

namespace msb::vmm {

// Files are given by their names in the directory of the sandbox.
class LiveDisk {
 public:
  LiveDisk() = default;
  LiveDisk(const LiveDisk&) = delete;
  LiveDisk& operator=(const LiveDisk&) = delete;
  virtual ~LiveDisk() = default;

  // Returns true if the VM writes to the overlay.
  // Throws kIO if the VM does not answer or has ended.
  virtual bool WritesTo(const Context& ctx, const std::string& overlay) = 0;

  // Lets the VM write to an empty overlay of the file that it writes to now, which is flushed and
  // not written to from then on. Returns how consistent that file is: "filesystem-consistent" or
  // "crash-consistent". If it throws, the VM may or may not write to the overlay.
  // Throws kUnsupportedOperation if level is kFilesystemConsistent and the guest's file systems
  // cannot be frozen.
  // Throws kIO if the VM refuses, does not answer or has ended.
  // Throws kCancelled if ctx ends before the guest is frozen.
  virtual std::string_view SwitchTo(const Context& ctx, const std::string& overlay,
                                    LiveSnapshot level, const Warn& warn) = 0;

  // Lets the VM close an overlay that it does not write to. Has no effect if it has not opened it.
  // Throws kUnsupportedOperation if the VM uses the overlay all the same, for example beneath a
  // filter.
  // Throws kIO if the VM does not answer or has ended.
  virtual void Close(const Context& ctx, const std::string& overlay) = 0;

  // Names the file that backs the overlay in the overlay's header, and flushes the overlay. The VM
  // continues to use the file that it has opened.
  // Throws kIO if the VM refuses, does not answer or has ended.
  virtual void SetBackingFile(const Context& ctx, const std::string& overlay,
                              const std::string& backing_file) = 0;

  // Returns true if the VM has ended.
  virtual bool HasEnded() = 0;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_LIVE_DISK_H_
