// SPDX-License-Identifier: Apache-2.0

#include "tests/support/sandbox_disk.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <span>
#include <utility>
#include <vector>

#include "src/base/regular_file.h"
#include "src/disk/disk_image.h"
#include "tests/support/support.h"

namespace msb::test {

std::string DiskOf(const std::string& sandbox, const Client& client) {
  const vmm::SandboxRecord record = client.backend()->Inspect(Context::Background(), sandbox);
  std::vector<disk::ImageFile> files;
  const auto add = [&](const Disk& file) {
    files.push_back(
        {base::OpenRegularFile(file.path, ErrorKind::kIO), file.format, file.path.filename()});
  };
  add(record.upper.value());
  for (const BackingFile& file : record.backing) add(file.disk);
  const auto image = disk::OpenImage(Context::Background(), std::move(files));
  std::string content(image->size(), '\0');
  image->Read(std::as_writable_bytes(std::span(content)), 0);
  return content;
}

void WriteAsGuest(const std::string& sandbox, int byte, std::uint64_t offset,
                  const Client& client) {
  const SandboxUpper upper = GetSandbox(Context::Background(), sandbox, client).Upper();
  const auto run = RunCommand(fmt::format("qemu-io -f {} -c 'write -P {} {} 64k' '{}'",
                                          ToString(upper.format), byte, offset, upper.path));
  EXPECT_EQ(run.status, 0) << run.output;
}

}  // namespace msb::test
