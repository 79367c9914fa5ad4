// SPDX-License-Identifier: Apache-2.0

#include "tests/soak/actor.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <stop_token>
#include <thread>

#include "tests/soak/expected.h"

namespace msb::soak {
namespace {

using std::chrono::milliseconds;

constexpr int kLongestDeadlineMs = 50;
constexpr std::size_t kMostHeld = 2;

// A random Context for one call: unbounded, with a deadline, or cancelled after a delay.
class RandomContext {
 public:
  explicit RandomContext(std::mt19937_64& random) {
    const auto kind = random() % 9;
    const milliseconds delay(random() % (kLongestDeadlineMs + 1));
    if (kind < 3) {
      deadline_ = Now() + static_cast<std::uint64_t>(std::chrono::nanoseconds(delay).count());
      ctx_ = ctx_.WithTimeout(delay);
    } else if (kind == 3) {
      deadline_ = Now() + static_cast<std::uint64_t>(std::chrono::nanoseconds(delay).count());
      auto [ctx, cancel] = ctx_.WithCancel();
      ctx_ = ctx;
      canceller_ = std::jthread([delay, cancel = cancel] {
        std::this_thread::sleep_for(delay);
        cancel();
      });
    }
  }

  const Context& ctx() const { return ctx_; }
  bool bounded() const { return deadline_ != 0; }
  // Returns how long ago the deadline passed or the call was cancelled, in nanoseconds; 0 if
  // neither has happened.
  std::uint64_t Late() const {
    const std::uint64_t now = Now();
    return deadline_ != 0 && now > deadline_ ? now - deadline_ : 0;
  }

 private:
  Context ctx_ = Context::Background();
  std::uint64_t deadline_ = 0;
  std::jthread canceller_;
};

// Returns true if the error is due to a file that the chaos thread has placed where a snapshot may
// be.
bool IsForeignFile(ErrorKind kind, std::string_view message) {
  return kind == ErrorKind::kSnapshotIntegrity &&
         message.find("must be a directory, but is a regular file") != std::string_view::npos;
}

template <typename T>
void RaiseTo(std::atomic<T>& maximum, T value) {
  T now = maximum.load();
  while (now < value && !maximum.compare_exchange_weak(now, value)) {
  }
}

}  // namespace

Actor::Actor(Worker& worker, int thread, std::uint64_t seed)
    : worker_(worker),
      shared_(worker.shared),
      slot_(worker.shared
                .slots[static_cast<std::size_t>(worker.index)][static_cast<std::size_t>(thread)]),
      thread_(thread),
      random_(seed) {}

void Actor::Run() {
  for (;;) {
    const Phase phase = shared_.phase.load();
    if (phase == Phase::kRun && slot_.used.load() < kRecords) {
      slot_.idle = false;
      // The phase may have changed before idle was cleared.
      if (shared_.phase.load() == Phase::kRun) Step();
    } else {
      Pause();
      if (phase == Phase::kStop) return;
      std::this_thread::sleep_for(milliseconds(5));
    }
  }
}

void Actor::Pause() {
  while (!held_.empty()) {
    Close(std::move(held_.front()));
    held_.pop_front();
  }
  slot_.idle = true;
}

void Actor::Step() {
  struct Choice {
    int weight;
    void (Actor::*act)();
  };
  static constexpr Choice kChoices[] = {
      {14, &Actor::Create},      {3, &Actor::Squash},        {6, &Actor::Open},
      {5, &Actor::Get},          {3, &Actor::List},          {3, &Actor::ListDir},
      {5, &Actor::Verify},       {6, &Actor::Export},        {4, &Actor::Import},
      {4, &Actor::Remove},       {2, &Actor::Reindex},       {4, &Actor::Flatten},
      {12, &Actor::MakeSandbox}, {3, &Actor::LookAtSandbox}, {2, &Actor::ListAllSandboxes},
      {3, &Actor::Start},        {4, &Actor::Stop},          {2, &Actor::Kill},
      {1, &Actor::DropSandbox},  {7, &Actor::Write},         {4, &Actor::Restore},
      {1, &Actor::Usage},
  };
  int all = 0;
  for (const Choice& choice : kChoices) all += choice.weight;
  int pick = Pick(all);
  for (const Choice& choice : kChoices) {
    pick -= choice.weight;
    if (pick >= 0) continue;
    (this->*choice.act)();
    return;
  }
}

Record* Actor::Begin(const Attempted& what) {
  SetText(slot_.doing, fmt::format("{} '{}' {}{}", NameOf(what.op), what.name, what.digest,
                                   what.forced ? " forced" : ""));
  slot_.since = Now();
  if (!IsRecorded(what.op)) return nullptr;
  const std::uint32_t used = slot_.used.load();
  if (used == kRecords) return nullptr;
  Record& record = slot_.records[used];
  record.begin = Now();
  record.end = 0;
  record.id = what.id;
  record.op = what.op;
  record.outcome = kSuccess;
  record.forced = what.forced;
  SetText(record.name, what.name);
  SetText(record.digest, what.digest);
  slot_.used = used + 1;
  return &record;
}

Outcome Actor::Failed(const Attempted& what, ErrorKind kind, const char* message, bool bounded) {
  const bool expected = kind == ErrorKind::kCancelled
                            ? bounded
                            : IsExpected(what.op, kind) || IsForeignFile(kind, message);
  // Only this worker makes objects with such names; neither another worker nor the chaos thread
  // does.
  const bool own = what.name.starts_with('w') || what.name.starts_with('p');
  const bool taken =
      kind == ErrorKind::kSnapshotAlreadyExists || kind == ErrorKind::kSandboxAlreadyExists;
  const bool makes = what.op != Op::kImport && IsRecorded(what.op) && what.op != Op::kRemove;
  if (own && makes && taken && what.forced) Report(fmt::format("not replaced: {}", message));
  if (what.op == Op::kRemove && what.forced && kind == ErrorKind::kSnapshotHasChildren) {
    Report(fmt::format("not removed by force: {}", message));
  }
  if (!expected) Report(fmt::format("unexpected {}: {}", ErrorKindName(kind), message));
  return static_cast<Outcome>(1 + static_cast<int>(kind));
}

Outcome Actor::Attempt(const Attempted& what,
                       const std::function<std::string(const Context&)>& call) {
  if (IsRecorded(what.op) && slot_.used.load() == kRecords) return kForeignException;
  Outcome outcome = kSuccess;
  const RandomContext context(random_);
  Record* record = Begin(what);
  try {
    const std::string digest = call(context.ctx());
    if (record != nullptr && !digest.empty()) SetText(record->digest, digest);
  } catch (const Error& e) {
    outcome = Failed(what, e.kind(), e.what(), context.bounded());
  } catch (const std::exception& e) {
    Report(fmt::format("threw something other than an msb::Error: {}", e.what()));
    outcome = kForeignException;
  }
  RaiseTo(shared_.cancelled_late, context.Late());
  if (record != nullptr) {
    record->outcome = outcome;
    record->end = Now();
  }
  slot_.since = 0;
  ++shared_.counts[static_cast<std::size_t>(what.op)][outcome];
  return outcome;
}

void Actor::Report(const std::string& what) {
  Find(worker_.places, fmt::format("{}: {}", slot_.doing.data(), what));
}

void Actor::Hold(Sandbox sandbox) {
  held_.push_back(std::move(sandbox));
  if (held_.size() <= kMostHeld) return;
  Close(std::move(held_.front()));
  held_.pop_front();
}

void Actor::Close(Sandbox sandbox) {
  Attempt({.op = Op::kClose, .name = sandbox.Name()}, [&](const Context&) {
    sandbox.Close();
    return std::string();
  });
}

bool Actor::Chance(double probability) {
  return std::uniform_real_distribution<>(0, 1)(random_) < probability;
}

int Actor::Pick(int count) { return std::uniform_int_distribution<>(0, count - 1)(random_); }

std::string Actor::SnapshotName() {
  // The smaller of two picks favors the first names, so that these are contended.
  if (Chance(0.6)) return SharedSnapshot(std::min(Pick(kSharedSnapshots), Pick(kSharedSnapshots)));
  return fmt::format("w{}{}", worker_.index, static_cast<char>('a' + Pick(kOwnSnapshots)));
}

std::string Actor::SnapshotKey() {
  if (Chance(0.1)) return (worker_.places.outside / fmt::format("o{}", Pick(kWorkers))).native();
  const std::string name = SnapshotName();
  if (Chance(0.2)) return (worker_.places.home / "snapshots" / name).native();
  return name;
}

std::string Actor::SandboxName() {
  if (Chance(0.5)) return SharedSandbox(std::min(Pick(kSharedSandboxes), Pick(kSharedSandboxes)));
  return OwnSandboxName(worker_.index, Pick(kOwnSandboxes));
}

OwnSandbox* Actor::OwnOf(const std::string& name) {
  for (OwnSandbox& own : worker_.own) {
    if (own.name == name) return &own;
  }
  return nullptr;
}

std::shared_lock<std::shared_mutex> Actor::Share(const std::string& name) {
  OwnSandbox* own = OwnOf(name);
  return own != nullptr ? std::shared_lock(own->mutex) : std::shared_lock<std::shared_mutex>();
}

Client& Actor::AnyClient() { return Chance(0.5) ? worker_.client : worker_.qcow2_client; }

std::filesystem::path Actor::Scratch(const std::string& suffix) const {
  return worker_.places.scratch / fmt::format("w{}t{}{}", worker_.index, thread_, suffix);
}

std::map<std::string, std::string> Actor::Labels(std::uint64_t id, const std::string& state,
                                                 bool integrity) const {
  return {{"id", std::to_string(id)}, {"state", state}, {"integrity", integrity ? "1" : "0"}};
}

void Actor::CheckDisk(const std::filesystem::path& disk, DiskFormat format,
                      const std::optional<SnapshotArtifact>& artifact) {
  const auto content = ReadDisk(disk, format, Scratch(".check"));
  if (const auto* wrong = std::get_if<std::string>(&content)) {
    return Report(fmt::format("wrong content: {}", *wrong));
  }
  if (!artifact) return;
  const auto labels = artifact->Labels();
  const auto label = labels.find("state");
  const auto expected = label == labels.end() ? std::nullopt : State::Parse(label->second);
  if (!expected || *expected == std::get<State>(content)) return;
  Report(fmt::format("content differs from the label of {}: found {}, expected {}",
                     artifact->Digest(), std::get<State>(content).ToString(),
                     expected->ToString()));
}

}  // namespace msb::soak
