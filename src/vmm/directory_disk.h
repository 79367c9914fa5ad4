// SPDX-License-Identifier: Apache-2.0
//
// Handles the disk files in a sandbox's directory: the upper, and the files that the upper is
// backed by.

#ifndef MSB_SRC_VMM_DIRECTORY_DISK_H_
#define MSB_SRC_VMM_DIRECTORY_DISK_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/vmm/directory_record.h"

namespace msb::vmm {

// A DiskSource is the disk of the image or snapshot that a new sandbox is created from.
struct DiskSource {
  std::string name = {};  // The backing file's name in the header of a qcow2 upper.
  Disk disk = {};
  std::vector<BackingFile> backing = {};  // The files that disk is backed by, nearest first.
};

// Returns the disk of a snapshot as the source of a sandbox's disk.
DiskSource SourceOf(const SnapshotSource& snapshot);

// A NewUpper says how and where to create an upper.
struct NewUpper {
  DiskFormat format;
  std::string name;             // The file name of the upper, which must be free.
  int dir;                      // The open directory of the sandbox.
  std::filesystem::path place;  // The path at which that directory is or will be published.
  // Returns the size of the upper, given the size of its source, both in bytes.
  std::function<std::uint64_t(std::uint64_t source_size)> size_for;
  // Adds a file that the upper is backed by to dir under this name.
  std::function<void(const std::filesystem::path& file, const std::string& name)> add_backing;
};

// Returns a file name for the upper of a sandbox that has another one already.
std::string NewUpperName(DiskFormat format);

// Returns true if a regular file has this name in dir.
bool HasFile(int dir, const std::string& name);

// Creates the upper of a sandbox, and sets upper and backing of the record, with the paths that the
// files will have once the directory is published. A raw upper is a copy of the source, with its
// holes. A qcow2 upper is empty and is backed by the source's files, which are added to the
// directory. Flushes the upper, but not the directory.
// Throws kSnapshotIntegrity if a file is damaged, or names another backing file than it should.
// Throws kUnsupportedOperation if a file uses an unsupported qcow2 feature.
// Throws what size_for and add_backing throw.
void MakeUpper(const Context& ctx, const DiskSource& source, const NewUpper& upper,
               SandboxRecord& record);

// Creates an empty qcow2 overlay in dir that is backed by another file in dir, and flushes it.
void MakeOverlay(int dir, const std::string& name, std::uint64_t virtual_size,
                 const BackingFile& backing);

// Hard links the file at path to name in dir, or copies it if it cannot be linked. The file must no
// longer be written to. On failure, a file of that name may be left in dir. Throws kIO if the file
// at path is replaced meanwhile.
void LinkOrCopy(const Context& ctx, const std::filesystem::path& path, int dir,
                const std::string& name);

// Removes the files that a crash left in the directory of a sandbox that is not running: disk files
// that its record does not name, run locks and temporary files. The record must have been saved,
// and the caller must hold the directory's lock.
void Sweep(int dir, const std::filesystem::path& path, const SandboxRecord& sandbox);

// Makes sure, before a VM boots, that the upper is writable and has no other hard link, so that a
// file that is also part of a snapshot, or of a copy of the home, is never written to. Replaces an
// upper that has another hard link by a copy. The caller must hold the directory's lock.
void OwnUpper(const Context& ctx, int dir, const SandboxRecord& sandbox);

// Throws kSandboxStillRunning if another program has the upper open for writing or mapped, as a VM
// has that was booted with it by hand. Does nothing if the upper may not be opened, or where that
// cannot be detected (base::HasWriter). The caller must hold the directory's lock.
void RefuseWriter(const Context& ctx, int dir, const SandboxRecord& sandbox);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_DIRECTORY_DISK_H_
