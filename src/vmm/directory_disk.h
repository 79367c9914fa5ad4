// The disk of a new sandbox that is a directory, and how it comes back from a seal that a crash cut
// off.

#ifndef MSB_SRC_VMM_DIRECTORY_DISK_H_
#define MSB_SRC_VMM_DIRECTORY_DISK_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/vmm/directory_record.h"

namespace msb::vmm {

// What a new sandbox is made from.
struct DiskSource {
  std::string name = {};  // As a qcow2 upper calls it.
  Disk disk = {};
  std::vector<BackingFile> backing = {};  // Below it.
};

// Makes the upper of a new sandbox in the directory dir, and sets upper and backing of the record,
// with paths beneath place, where the directory is to be. A raw upper is a copy, with its holes. A
// qcow2 upper is empty and stands on links to the source's files, or copies where there can be no
// links; that costs the same for any size. Flushes the files, not the directory.
// kInvalidArgument: the upper would be smaller than its source. kSnapshotIntegrity,
// kUnsupportedOperation: the files are none to boot from.
void MakeUpper(const Context& ctx, const SandboxSpec& spec, const DiskSource& source,
               DiskFormat format, int dir, const std::filesystem::path& place,
               SandboxRecord& record);

// Gives dir a qcow2 file without data that stands on another, and flushes it.
void MakeOverlay(int dir, const std::string& name, std::uint64_t virtual_size,
                 const BackingFile& backing);

// Ends a pending seal of the record: if the snapshot has the sealed file, the sandbox stands on
// that from now on, else it has its upper again. The record is then to be saved. False if none is
// pending. The directory, which is at path, must be locked.
bool EndSeal(int dir, const std::filesystem::path& path, DirectoryRecord& record);

// Removes files that the saved record does not name, as a crash leaves them, and makes sure that
// the upper is writable and has no other name: a file that an artifact holds is never written to.
void Tidy(const Context& ctx, int dir, const std::filesystem::path& path,
          const DirectoryRecord& record);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_DIRECTORY_DISK_H_
