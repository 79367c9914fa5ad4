// SPDX-License-Identifier: Apache-2.0

#include "tests/soak/peer.h"

#include <fmt/format.h>

#include <chrono>

#include "tests/soak/command.h"
#include "tests/soak/model.h"
#include "tests/soak/worker.h"

namespace msb::soak {

Peer::Peer(std::filesystem::path program, const Places& places, Shared& shared, std::uint64_t seed)
    : program_(std::move(program)),
      places_(places),
      shared_(shared),
      grouped_(program_.filename().native() >= "msb-0.7"),
      random_(seed),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

void Peer::Run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    idle_ = false;
    if (shared_.phase.load() == Phase::kRun) Step();
    idle_ = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

// Returns true if others may have replaced or removed the snapshot since then. A runtime opens the
// manifest and the disk by their paths, so it may see the files of two different snapshots.
bool Peer::WasTouched(const std::string& name, std::uint64_t since) const {
  for (const Event& event : EventsOf(shared_)) {
    if (event.name == name && event.end >= since) return true;
    if (event.name.empty() && event.op == Op::kRemove && event.end >= since) return true;
  }
  return false;
}

void Peer::Command(const std::string& kind, const std::string& name, const std::string& arguments) {
  const std::uint64_t begin = Now();
  const auto result =
      RunTied(fmt::format("env MSB_HOME={} {} snapshot {} {}", places_.home.native(),
                          program_.native(), kind, arguments));
  const std::string line =
      fmt::format("{} {} {}: {}", program_.filename().native(), kind, arguments, result.output);
  // It may fail because a snapshot is gone, but must not find a damaged one.
  const bool damaged =
      result.status != 0 && (result.output.find("integrity") != std::string::npos ||
                             result.output.find("mismatch") != std::string::npos);
  // Release 0.7 looks for a qcow2 disk only where it stores its own.
  const bool unknown = grouped_ && result.output.find("/layers/layer_") != std::string::npos &&
                       result.output.find(".qcow2: No such file") != std::string::npos;
  if (result.status > 128 || (damaged && !unknown && !WasTouched(name, begin))) {
    Find(places_, line);
  }
  if (result.status != 0) AppendLine(places_.root / "peer.txt", line);
  const std::lock_guard lock(mutex_);
  ++counts_[fmt::format("{} {}", kind, result.status == 0 ? "ok" : "failed")];
}

void Peer::Load(const std::string& archive) {
  Slot& slot = shared_.peer;
  const std::uint32_t used = slot.used.load();
  if (used == kRecords) return;
  // Recorded without an end, since its result is unknown.
  Record& record = slot.records[used];
  record.begin = Now();
  record.end = 0;
  record.op = Op::kImport;
  slot.used = used + 1;
  Command("load", "", archive);
}

void Peer::Step() {
  const std::string name = SharedSnapshot(static_cast<int>(random_() % kSharedSnapshots));
  const std::string key = grouped_ ? (places_.home / "snapshots" / name).native() : name;
  const std::string saved = (places_.scratch / "peer.tar.zst").native();
  const std::filesystem::path archive = places_.out / fmt::format("e{}.tar", random_() % kArchives);
  switch (random_() % 9) {
    case 0:
    case 1:
      return Command("list", "", "");
    case 2:
    case 3:
      return Command("inspect", name, key);
    case 4:
    case 5:
      return Command("verify", name, key);
    case 6:
      return Command("reindex", "", "");
    case 7:
      if (std::filesystem::is_regular_file(archive)) Load(archive);
      return;
    default:
      std::filesystem::remove(saved);
      return Command("save", name, key + " " + saved);
  }
}

std::map<std::string, int> Peer::Counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void Peer::Stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

}  // namespace msb::soak
