// SPDX-License-Identifier: Apache-2.0
//
// Data that the processes of the soak share, in a mapped file that outlives a killed process: the
// journal of operations, the counters, and the current operation of each thread.
//
// Each thread appends to its own part of the journal: an operation is recorded before it begins,
// and its outcome after it has ended. An operation without an outcome was cut off by SIGKILL, and
// may have happened or not.

#ifndef MSB_TESTS_SOAK_SHARED_H_
#define MSB_TESTS_SOAK_SHARED_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace msb::soak {

inline constexpr int kWorkers = 6;
inline constexpr int kThreads = 4;
inline constexpr int kOwnSandboxes = 3;  // Per worker.
inline constexpr std::size_t kRecords = 4096;

enum class Op : std::uint8_t {
  kCreate,
  kSquash,
  kImport,
  kRemove,
  kCreateSandbox,
  kRemoveSandbox,
  kOpen,
  kGet,
  kList,
  kListDir,
  kVerify,
  kExport,
  kFlatten,
  kFlattenAway,  // In a home that holds only the content of one archive.
  kReindex,
  kUsage,
  kGetSandbox,
  kListSandboxes,
  kStart,
  kStop,
  kKill,
  kRestore,
  kClose,
  kWrite,  // Writes to the disk of a stopped sandbox, without the library.
};
inline constexpr std::size_t kOps = static_cast<std::size_t>(Op::kWrite) + 1;
std::string_view NameOf(Op op);

// Returns true for the operations that make or remove a snapshot or a sandbox; the journal has only
// these.
constexpr bool IsRecorded(Op op) { return op <= Op::kRemoveSandbox; }

// 0 for success, 1 + ErrorKind for an error, or kForeignException for another exception.
using Outcome = std::uint8_t;
inline constexpr Outcome kSuccess = 0;
inline constexpr Outcome kForeignException = 31;
inline constexpr std::size_t kOutcomes = 32;
std::string NameOf(Outcome outcome);

struct Record {
  std::uint64_t begin = 0;             // Nanoseconds of the monotonic clock.
  std::atomic<std::uint64_t> end = 0;  // 0 until it has ended.
  std::uint64_t id = 0;                // Id of the object that is made; also in its labels.
  Op op = Op::kCreate;
  Outcome outcome = kSuccess;
  bool forced = false;
  std::array<char, 96> name{};    // Name of the directory; empty if unknown.
  std::array<char, 80> digest{};  // Digest of the snapshot that was made or is to be removed.
};

struct Slot {
  std::atomic<bool> idle = false;
  std::atomic<std::uint64_t> since = 0;  // When the current operation began.
  std::array<char, 160> doing{};
  std::atomic<std::uint32_t> used = 0;
  std::array<Record, kRecords> records;
};

enum class Phase : std::uint8_t { kRun, kPause, kStop };

struct Shared {
  std::atomic<Phase> phase = Phase::kPause;
  std::atomic<std::uint64_t> next_id = 1;
  std::atomic<std::uint64_t> cancelled_late = 0;  // Longest time past a deadline, nanoseconds.
  std::array<std::array<std::atomic<std::uint64_t>, kOutcomes>, kOps> counts;
  // Set when a worker writes to the disk of its sandbox, until the content is known again.
  std::array<std::array<std::atomic<bool>, kOwnSandboxes>, kWorkers> torn;
  std::array<std::array<Slot, kThreads>, kWorkers> slots;
  Slot peer;
  std::atomic<bool> has_peer = false;
};

// Maps the file; creates it if create is set.
Shared& MapShared(const std::filesystem::path& file, bool create);

std::uint64_t Now();

template <std::size_t N>
void SetText(std::array<char, N>& to, std::string_view from) {
  const std::size_t length = from.copy(to.data(), N - 1);
  to[length] = '\0';
}

// The directories of a run, all below root.
struct Places {
  std::filesystem::path root = {};
  std::filesystem::path home = root / "home";
  std::filesystem::path images = root / "images";
  std::filesystem::path out = root / "out";          // Archives and flattened disks.
  std::filesystem::path outside = root / "outside";  // Artifacts outside the snapshots directory.
  std::filesystem::path foreign = root / "foreign";  // What the chaos thread has not placed.
  std::filesystem::path scratch = root / "scratch";
};

// Appends one line to a file, in one piece even if others append at the same time.
void AppendLine(const std::filesystem::path& file, std::string line);
// Reports a finding: something that is not as it must be.
inline void Find(const Places& places, const std::string& what) {
  AppendLine(places.root / "findings.log", what);
}

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_SHARED_H_
