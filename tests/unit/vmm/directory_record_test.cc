// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/directory_record.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/support.h"

namespace msb::vmm {
namespace {

using nlohmann::json;
using Pointer = json::json_pointer;
using std::string_literals::operator""s;

const std::filesystem::path kDir = "/home/sandboxes/worker";

DirectoryRecord MakeRecord() {
  DirectoryRecord record;
  SandboxRecord& sandbox = record.sandbox;
  sandbox.name = "worker";
  sandbox.status = SandboxStatus::kRunning;
  sandbox.image = Image{"base.img", "sha256:" + std::string(64, 'a')};
  sandbox.upper = Disk{kDir / "upper.qcow2", DiskFormat::kQcow2, "xfs"};
  sandbox.snapshot_digest = "sha256:" + std::string(64, 'b');
  sandbox.labels = {{"stage", "one"}, {"\u00e9\"", "\n"}};
  sandbox.created_at = std::chrono::system_clock::time_point(std::chrono::nanoseconds(1234567890));
  sandbox.started_at = sandbox.created_at + std::chrono::hours(1);
  record.process = Runner{base::ProcessIdentity::Self()};
  record.cpus = 3;
  record.memory_mib = 4096;
  return record;
}

std::string With(const std::string& pointer, const json& value) {
  json document = json::parse(MakeRecord().Write());
  document[Pointer(pointer)] = value;
  return document.dump();
}

TEST(DirectoryRecordTest, ReadsBackWrittenRecords) {
  DirectoryRecord record = MakeRecord();
  const std::string text = record.Write();
  const DirectoryRecord read = DirectoryRecord::Parse(text, kDir);
  EXPECT_EQ(read.sandbox.name, "worker");
  EXPECT_EQ(read.sandbox.status, SandboxStatus::kRunning);
  EXPECT_EQ(read.sandbox.image->ref, "base.img");
  EXPECT_EQ(read.sandbox.image->manifest_digest, record.sandbox.image->manifest_digest);
  EXPECT_EQ(read.sandbox.upper->path, kDir / "upper.qcow2");
  EXPECT_EQ(read.sandbox.upper->format, DiskFormat::kQcow2);
  EXPECT_EQ(read.sandbox.upper->fstype, "xfs");
  EXPECT_EQ(read.sandbox.snapshot_digest, record.sandbox.snapshot_digest);
  EXPECT_EQ(read.sandbox.labels, record.sandbox.labels);
  EXPECT_EQ(read.sandbox.created_at, record.sandbox.created_at);
  EXPECT_EQ(read.sandbox.started_at, record.sandbox.started_at);
  EXPECT_EQ(read.sandbox.updated_at, record.sandbox.updated_at);
  EXPECT_EQ(read.sandbox.config_json, text);
  EXPECT_EQ(read.cpus, 3U);
  EXPECT_EQ(read.memory_mib, 4096U);
  ASSERT_TRUE(read.process);
  EXPECT_EQ(read.process->pid, record.process->pid);
  EXPECT_EQ(read.process->start_ticks, record.process->start_ticks);
  EXPECT_EQ(read.process->boot_id, base::BootId());
}

TEST(DirectoryRecordTest, ReadsBackARecordWithoutOptionalFields) {
  DirectoryRecord record = MakeRecord();
  record.sandbox.status = SandboxStatus::kStopped;
  record.sandbox.labels.clear();
  record.sandbox.snapshot_digest.reset();
  record.process.reset();
  const DirectoryRecord read = DirectoryRecord::Parse(record.Write(), kDir);
  EXPECT_EQ(read.sandbox.status, SandboxStatus::kStopped);
  EXPECT_TRUE(read.sandbox.labels.empty());
  EXPECT_EQ(read.sandbox.snapshot_digest, std::nullopt);
  EXPECT_FALSE(read.process);
}

TEST(DirectoryRecordTest, ReadsBackMachineSettings) {
  DirectoryRecord record = MakeRecord();
  record.machine = {.append = "console=ttyS0"};
  record.machine_defaults = {.kernel = "/boot/vmlinuz",
                             .initrd = "/boot/initrd",
                             .append = "quiet",
                             .memory_mib = 256,
                             .cpus = 2,
                             .extra_arguments = {"-device", "", "\u00e9"}};
  const DirectoryRecord read = DirectoryRecord::Parse(record.Write(), kDir);
  EXPECT_EQ(read.machine.append, "console=ttyS0");
  EXPECT_TRUE(read.machine.kernel.empty());
  EXPECT_EQ(read.machine_defaults.kernel, "/boot/vmlinuz");
  EXPECT_EQ(read.machine_defaults.initrd, "/boot/initrd");
  EXPECT_EQ(read.machine_defaults.append, "quiet");
  EXPECT_EQ(read.machine_defaults.memory_mib, 256U);
  EXPECT_EQ(read.machine_defaults.cpus, 2U);
  EXPECT_EQ(read.machine_defaults.extra_arguments, record.machine_defaults.extra_arguments);
}

TEST(DirectoryRecordTest, RecordsOfEarlierReleasesHaveNoMachineSettings) {
  const json document = json::parse(MakeRecord().Write());
  EXPECT_FALSE(document.contains("machine"));
  EXPECT_FALSE(document.contains("machine_defaults"));
  EXPECT_TRUE(DirectoryRecord::Parse(document.dump(), kDir).machine_defaults.kernel.empty());
}

TEST(DirectoryRecordTest, RefusesMalformedMachineSettings) {
  for (const json& machine :
       {json(nullptr), json("kernel"), json{{"kernel", "vmlinuz"}}, json{{"kernel", 1}},
        json{{"initrd", "../initrd"}}, json{{"append", json::array()}}, json{{"append", "a\0b"s}},
        json{{"cpus", -1}}, json{{"memory_mib", 1ULL << 32}}, json{{"extra_arguments", "-S"}},
        json{{"extra_arguments", {1}}}, json{{"extra_arguments", {"a\0b"s}}}}) {
    SCOPED_TRACE(machine.dump());
    for (const char* field : {"/machine", "/machine_defaults"}) {
      EXPECT_MSB_ERROR(DirectoryRecord::Parse(With(field, machine), kDir),
                       ErrorKind::kInvalidConfig,
                       "record of sandbox /home/sandboxes/worker: ", std::string(field).substr(1));
    }
  }
}

TEST(DirectoryRecordTest, WritesTheTimeOfEachChange) {
  DirectoryRecord record = MakeRecord();
  const auto before = std::chrono::system_clock::now();
  record.Write();
  EXPECT_GE(record.sandbox.updated_at, before);
  EXPECT_LE(record.sandbox.updated_at, std::chrono::system_clock::now());
}

TEST(DirectoryRecordTest, KeepsTheStatusThatIsRecorded) {
  DirectoryRecord record = MakeRecord();
  record.process->boot_id = "another";
  EXPECT_EQ(DirectoryRecord::Parse(record.Write(), kDir).sandbox.status, SandboxStatus::kRunning);
}

TEST(DirectoryRecordTest, ReadsBackTheOwnersLock) {
  DirectoryRecord record = MakeRecord();
  record.process->host = "host/1234";
  record.process->lock_file = "run-0123456789abcdef.lock";
  record.process->lock_domain = "0123abcd";
  const DirectoryRecord read = DirectoryRecord::Parse(record.Write(), kDir);
  EXPECT_EQ(read.process->host, "host/1234");
  EXPECT_EQ(read.process->lock_file, "run-0123456789abcdef.lock");
  EXPECT_EQ(read.process->lock_domain, "0123abcd");
  EXPECT_EQ(read.process->pid_namespace, base::PidNamespace());
  for (const char* lock : {"../run.lock", "/run.lock", "."}) {
    EXPECT_MSB_ERROR(DirectoryRecord::Parse(With("/process/lock", lock), kDir),
                     ErrorKind::kInvalidConfig,
                     "record of sandbox /home/sandboxes/worker: process.lock ", lock);
  }
}

TEST(DirectoryRecordTest, ToleratesFieldsOfLaterReleases) {
  EXPECT_EQ(DirectoryRecord::Parse(With("/later", 1), kDir).cpus, 3U);
  EXPECT_EQ(DirectoryRecord::Parse(With("/upper/later", 1), kDir).sandbox.upper->fstype, "xfs");
}

TEST(DirectoryRecordTest, RefusesARecordWithoutOneOfItsFields) {
  for (const char* field : {"/schema",
                            "/status",
                            "/process",
                            "/process/pid",
                            "/process/start_ticks",
                            "/process/boot_id",
                            "/image",
                            "/image/ref",
                            "/image/manifest_digest",
                            "/upper",
                            "/upper/file",
                            "/upper/format",
                            "/upper/fstype",
                            "/snapshot",
                            "/labels",
                            "/cpus",
                            "/memory_mib",
                            "/created_at",
                            "/started_at",
                            "/updated_at"}) {
    json document = json::parse(MakeRecord().Write());
    const Pointer pointer(field);
    document.at(pointer.parent_pointer()).erase(pointer.back());
    SCOPED_TRACE(field);
    EXPECT_MSB_ERROR(DirectoryRecord::Parse(document.dump(), kDir), ErrorKind::kInvalidConfig,
                     "record of sandbox /home/sandboxes/worker: ", pointer.back() + " is missing");
  }
}

TEST(DirectoryRecordTest, RefusesValuesThatItCannotUse) {
  const std::vector<std::pair<std::string, json>> bad = {{"/schema", "msb.sandbox/2"},
                                                         {"/schema", 1},
                                                         {"/status", "draining"},
                                                         {"/status", nullptr},
                                                         {"/process", 5},
                                                         {"/process/pid", -1},
                                                         {"/process/pid", std::uint64_t{1} << 31},
                                                         {"/process/pid", "1"},
                                                         {"/process/start_ticks", 1.5},
                                                         {"/process/boot_id", 1},
                                                         {"/image", nullptr},
                                                         {"/image/ref", ""},
                                                         {"/upper", nullptr},
                                                         {"/upper/file", "../upper.ext4"},
                                                         {"/upper/file", "/dev/sda"},
                                                         {"/upper/file", ".."},
                                                         {"/upper/format", "vmdk"},
                                                         {"/upper/fstype", ""},
                                                         {"/snapshot", "sha256:1"},
                                                         {"/labels", nullptr},
                                                         {"/labels/stage", 1},
                                                         {"/cpus", -1},
                                                         {"/cpus", std::uint64_t{1} << 32},
                                                         {"/memory_mib", "512"},
                                                         {"/created_at", "yesterday"},
                                                         {"/started_at", nullptr},
                                                         {"/updated_at", 0}};
  for (const auto& [field, value] : bad) {
    SCOPED_TRACE(field + " = " + value.dump());
    EXPECT_MSB_ERROR(
        DirectoryRecord::Parse(With(field, value), kDir), ErrorKind::kInvalidConfig,
        "record of sandbox /home/sandboxes/worker: ", field.substr(1, field.find('/', 1) - 1));
  }
}

TEST(DirectoryRecordTest, RefusesDamagedText) {
  const std::string text = MakeRecord().Write();
  for (std::size_t length = 0; length < text.size(); ++length) {
    EXPECT_MSB_ERROR(DirectoryRecord::Parse(text.substr(0, length), kDir),
                     ErrorKind::kInvalidConfig,
                     "record of sandbox /home/sandboxes/worker: invalid JSON at byte ");
  }
  EXPECT_MSB_ERROR(DirectoryRecord::Parse(text + "x", kDir), ErrorKind::kInvalidConfig,
                   "record of sandbox /home/sandboxes/worker: invalid JSON at byte ");
  EXPECT_MSB_ERROR(
      DirectoryRecord::Parse("[]", kDir), ErrorKind::kInvalidConfig,
      "record of sandbox /home/sandboxes/worker: ", "must be an object, but is an array");
  EXPECT_MSB_ERROR(DirectoryRecord::Parse("\xff", kDir), ErrorKind::kInvalidConfig,
                   "record of sandbox /home/sandboxes/worker: invalid JSON at byte 1");
}

}  // namespace
}  // namespace msb::vmm
