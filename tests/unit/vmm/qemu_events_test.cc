// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_events.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "src/base/fifo.h"
#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

using test::ReadFile;
using test::TempDir;
using test::WriteFile;

std::string Shutdown(const std::string& reason) {
  return "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"SHUTDOWN\", "
         "\"data\": {\"guest\": true, \"reason\": \"" +
         reason + "\"}}\r\n";
}

TEST(QemuEventsTest, ReasonOfTheLastShutdownCounts) {
  for (const char* reason : {"guest-shutdown", "host-qmp-quit", "host-signal"}) {
    EXPECT_EQ(EndAccordingTo(Shutdown(reason)), SandboxStatus::kStopped) << reason;
  }
  for (const char* reason : {"guest-reset", "guest-panic", "host-error"}) {
    EXPECT_EQ(EndAccordingTo(Shutdown(reason)), SandboxStatus::kCrashed) << reason;
  }
  EXPECT_EQ(EndAccordingTo(Shutdown("guest-reset") + Shutdown("guest-shutdown")),
            SandboxStatus::kStopped);
}

TEST(QemuEventsTest, EndWithoutAReasonIsACrash) {
  EXPECT_EQ(EndAccordingTo(""), SandboxStatus::kCrashed);
  EXPECT_EQ(EndAccordingTo("{\"return\": {}}\n"), SandboxStatus::kCrashed);
  EXPECT_EQ(EndAccordingTo("{\"event\": \"RESUME\"}\n"), SandboxStatus::kCrashed);
}

TEST(QemuEventsTest, MalformedLinesAreIgnored) {
  for (const char* line : {"SHUTDOWN\n", "[]\n", "\n\n", "\xff\n", "\"SHUTDOWN\"}\n",
                           "{\"event\": 1}\n", "{\"event\": \"SHUT"}) {
    EXPECT_EQ(EndAccordingTo(Shutdown("guest-shutdown") + line), SandboxStatus::kStopped) << line;
  }
  EXPECT_EQ(EndAccordingTo("{\"event\": \"SHUTDOWN\", \"data\": []}\n"), SandboxStatus::kStopped);
}

TEST(QemuEventsTest, OnlyTheEndOfALongLogIsRead) {
  const TempDir dir;
  const base::UniqueFd fd = base::OpenDirectory(dir.path());
  EXPECT_EQ(EndAccordingToEvents(fd.get()), std::nullopt);
  const std::string noise(1 << 20, 'x');
  WriteFile(dir / "qemu-events.out", noise + "\n" + Shutdown("guest-shutdown"));
  EXPECT_EQ(EndAccordingToEvents(fd.get()), SandboxStatus::kStopped);
}

TEST(QemuEventsTest, MakesAFifoThatEnablesEvents) {
  const TempDir dir;
  const base::UniqueFd fd = base::OpenDirectory(dir.path());
  {
    const base::UniqueFd input = MakeEventLog(fd.get());
    EXPECT_GT(input.get(), 2);
    EXPECT_TRUE(std::filesystem::is_fifo(dir / "qemu-events.in"));
    EXPECT_FALSE(EventLogHasBegun(fd.get()));
    WriteFile(dir / "qemu-events.out", "{\"return\": {}}\n");
    EXPECT_TRUE(EventLogHasBegun(fd.get()));
    EXPECT_MSB_ERROR(base::MakeFifoAt(fd.get(), "qemu-events.in", ""), ErrorKind::kIO,
                     "cannot create the FIFO ", "/qemu-events.in: ", "move it away");
  }
  RemoveEventLog(dir.path());
  RemoveEventLog(dir.path());
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace msb::vmm
