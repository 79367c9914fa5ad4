// SPDX-License-Identifier: Apache-2.0

#include "src/disk/sparse_copy.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>

#include "src/base/file.h"
#include "src/base/file_system.h"
#include "src/base/retry.h"
#include "src/base/space.h"
#include "src/base/throw.h"

namespace msb::disk {
namespace {

// The maximum that the kernel copies between two checks of the Context, in bytes.
constexpr std::uint64_t kCopyStep = 8 << 20;

bool Reflink(int source, int target, std::uint64_t size) {
  if (ioctl(target, FICLONE, source) != 0) return false;
  base::Resize(target, size);  // The source may have grown since its size was read.
  return true;
}

bool IsNetworkFileSystem(int fd) {
  struct statfs file_system;
  if (fstatfs(fd, &file_system) != 0) return false;
  const auto type = static_cast<std::uint32_t>(file_system.f_type);
  return type == NFS_SUPER_MAGIC || type == SMB2_SUPER_MAGIC || type == CIFS_SUPER_MAGIC;
}

// Returns true for the errors with which kernels and file servers refuse to copy by themselves.
// Some NFS servers return EIO then. If the error has another cause, reading and writing will report
// it.
bool MustReadAndWrite(int error) {
  return base::IsUnsupported(error) || error == EXDEV || error == ETXTBSY || error == EPERM ||
         error == EIO || error == EBADF;
}

// Copies the extent. Returns the offset at which it stopped: before the end of the extent if the
// kernel cannot copy between these two files.
std::uint64_t CopyExtentInKernel(int source, int target, Extent extent,
                                 base::ProgressMeter& meter) {
  while (extent.length > 0) {
    auto from = static_cast<off_t>(extent.offset);
    auto to = from;
    const std::size_t step = std::min(extent.length, kCopyStep);
    const ssize_t n =
        base::Retry([&] { return copy_file_range(source, &from, target, &to, step, 0); });
    if (n < 0 && !MustReadAndWrite(errno)) base::ThrowErrno("copy to", target);
    // Some file systems return 0 before the end of the source.
    if (n <= 0) break;
    const auto done = static_cast<std::uint64_t>(n);
    extent = {extent.offset + done, extent.length - done};
    meter.Add(done);
  }
  return extent.offset;
}

// Writes a copy of source to target by calling write, and flushes it.
template <typename Write>
void WriteCopy(int source, int target, const Write& write) {
  const auto need = [&] {
    return base::SpaceNeed{.bytes = base::AllocatedBytes(base::StampOf(source))};
  };
  base::ReportingSpace(target, need, [&] {
    write();
    base::Sync(target);
  });
}

std::uint64_t TotalFor(const Context& ctx, int source, std::uint64_t size) {
  return base::ProgressMeter::Wanted(ctx) ? CountDataBytes(ctx, source, size) : 0;
}

}  // namespace

void RegionWriter::Commit(const Region& region) {
  next_.Commit(region);
  for (const Extent& extent : region.data) {
    base::WriteExactly(target_, region.bytes.data() + (extent.offset - region.offset),
                       extent.length, extent.offset);
  }
  // The disk can write this while the next region is read.
  base::BeginWriteback(target_, region.offset, kRegionBytes);
}

std::uint64_t CopyInKernel(int source, int target, std::uint64_t size, base::ProgressMeter& meter) {
  ExtentReader extents(meter.context(), source, size);
  while (const auto extent = extents.Next()) {
    const std::uint64_t end = CopyExtentInKernel(source, target, *extent, meter);
    if (end < extent->end()) return end;
  }
  return size;
}

void CopySparse(const Context& ctx, int source, int target, std::uint64_t size) {
  const std::uint64_t total = TotalFor(ctx, source, size);
  base::ProgressMeter meter(ctx, "copy", total);
  ctx.Check();
  WriteCopy(source, target, [&] {
    if (Reflink(source, target, size)) return meter.Add(total);
    base::Resize(target, size);
    const std::uint64_t copied =
        IsNetworkFileSystem(target) ? CopyInKernel(source, target, size, meter) : 0;
    if (copied == size) return;
    RegionConsumer nothing;
    RegionWriter writer(target, nothing);
    ScanData(source, size, meter, writer, copied);
  });
  ctx.Check();
  meter.Finish();
}

void CopySparse(const Context& ctx, int source, int target, std::uint64_t size,
                RegionConsumer& consumer) {
  base::ProgressMeter meter(ctx, "copy", TotalFor(ctx, source, size));
  ctx.Check();
  WriteCopy(source, target, [&] {
    if (Reflink(source, target, size)) return ScanData(source, size, meter, consumer);
    base::Resize(target, size);
    RegionWriter writer(target, consumer);
    ScanData(source, size, meter, writer);
  });
  ctx.Check();
  meter.Finish();
}

}  // namespace msb::disk
