// SPDX-License-Identifier: Apache-2.0

#include "tests/soak/supervisor.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <iterator>
#include <map>
#include <thread>
#include <vector>

#include "tests/soak/command.h"
#include "tests/soak/content.h"
#include "tests/soak/worker.h"
#include "tests/support/support.h"

namespace msb::soak {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kBetweenKills{1};
constexpr milliseconds kFreeze{300};
// No operation takes this long, however busy the machine is.
constexpr seconds kStuck{90};
constexpr std::uint64_t kMostLateNs = 20'000'000'000;
// After this many rounds, a worker has opened everything that it keeps open.
constexpr int kWarmUp = 3;
constexpr std::size_t kSlack = 4;
constexpr std::size_t kMostPrinted = 40;

std::size_t EntriesIn(const fs::path& dir) {
  std::error_code gone;
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(dir, gone), fs::directory_iterator()));
}

// Returns the line with all numbers replaced. Findings with equal keys count as one.
std::string KeyOf(const std::string& line) {
  std::string key;
  for (const char c : line) {
    const bool digit = std::isxdigit(static_cast<unsigned char>(c)) != 0;
    if (!digit || key.empty() || key.back() != '#') key += digit ? '#' : c;
  }
  return key.substr(0, 200);
}

struct Line {
  std::string first;
  std::size_t count = 0;
};
std::map<std::string, Line> LinesOf(const fs::path& file) {
  std::map<std::string, Line> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    Line& same = lines[KeyOf(line)];
    if (same.count++ == 0) same.first = line;
  }
  return lines;
}

void PrintLines(const char* title, const std::map<std::string, Line>& lines) {
  if (lines.empty()) return;
  fmt::print("{}:\n", title);
  std::vector<Line> sorted;
  for (const auto& [key, line] : lines) sorted.push_back(line);
  std::ranges::sort(sorted, std::greater(), &Line::count);
  if (sorted.size() > kMostPrinted) sorted.resize(kMostPrinted);
  for (const Line& line : sorted) fmt::print("  {:5} × {}\n", line.count, line.first);
}

}  // namespace

Supervisor::Supervisor(const SoakOptions& options)
    : options_(options), places_{.root = options.root}, random_(options.seed) {}

void Supervisor::MakePlaces() {
  fs::create_directories(places_.root);
  if (!options_.peer.empty()) {
    const std::string release = options_.peer.filename().native().substr(4);
    fs::rename(test::UnpackFixtureHome(release, places_.root), places_.home);
  }
  for (const fs::path& dir : {places_.home, places_.images, places_.out, places_.outside,
                              places_.foreign, places_.scratch}) {
    fs::create_directories(dir);
  }
  shared_ = &MapShared(places_.root / "shared", /*create=*/true);
  State state;
  const auto next = [&] {
    for (std::size_t slot = 1; slot < kSlots; slot += 2) state.stamps[slot] = shared_->next_id++;
  };
  next();
  MakeImage(places_.images / "small.raw", kSlots * kSlotStride, state);
  next();
  MakeImage(places_.images / "large.raw", (kSlots + 1) * kSlotStride, state);
  next();
  MakeImage(places_.scratch / "raw", kSlots * kSlotStride, state);
  const auto made = RunTied(fmt::format("qemu-img convert -f raw -O qcow2 {} {}",
                                        (places_.scratch / "raw").native(),
                                        (places_.images / "small.qcow2").native()));
  if (made.status != 0) throw std::runtime_error("qemu-img: " + made.output);
}

void Supervisor::StartWorker(int worker) {
  Process& process = processes_[static_cast<std::size_t>(worker)];
  for (Slot& slot : shared_->slots[static_cast<std::size_t>(worker)]) {
    slot.idle = false;
    slot.since = 0;
  }
  const std::uint64_t seed =
      options_.seed * 1'000'003 + static_cast<std::uint64_t>(worker) * 10'007 + process.starts++;
  std::vector<std::string> arguments = {
      "soak",   "--worker",          std::to_string(worker), "--home", places_.root.native(),
      "--seed", std::to_string(seed)};
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  if (posix_spawn(&process.pid, "/proc/self/exe", nullptr, nullptr, pointers.data(), environ) !=
      0) {
    throw std::runtime_error("cannot start a worker");
  }
}

void Supervisor::KillWorker(int worker) {
  const pid_t pid = processes_[static_cast<std::size_t>(worker)].pid;
  kill(pid, SIGKILL);
  int status = 0;
  waitpid(pid, &status, 0);
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
    Find(places_, fmt::format("worker {} ended with wait status {:#x}", worker, status));
  }
  ++kills_;
}

void Supervisor::Freeze(int worker) const {
  const pid_t pid = processes_[static_cast<std::size_t>(worker)].pid;
  kill(pid, SIGSTOP);
  std::this_thread::sleep_for(kFreeze);
  kill(pid, SIGCONT);
}

void Supervisor::CheckAlive() {
  for (int worker = 0; worker < kWorkers; ++worker) {
    int status = 0;
    if (waitpid(processes_[static_cast<std::size_t>(worker)].pid, &status, WNOHANG) <= 0) continue;
    std::string doing;
    for (const Slot& slot : shared_->slots[static_cast<std::size_t>(worker)]) {
      doing += fmt::format(" [{}]", slot.doing.data());
    }
    Find(places_, fmt::format("worker {} ended with wait status {:#x}:{}", worker, status, doing));
    StartWorker(worker);
  }
}

bool Supervisor::IsIdle(int worker) const {
  return std::ranges::all_of(shared_->slots[static_cast<std::size_t>(worker)],
                             [](const Slot& slot) { return slot.idle.load(); });
}

void Supervisor::ReportStuck(int worker) {
  std::string doing;
  for (const Slot& slot : shared_->slots[static_cast<std::size_t>(worker)]) {
    const std::uint64_t since = slot.since.load();
    if (slot.idle || since == 0) continue;
    doing += fmt::format(" [{}, for {} s]", slot.doing.data(), (Now() - since) / 1'000'000'000);
  }
  const fs::path stacks = places_.root / fmt::format("stuck-{}-{}.txt", rounds_, worker);
  const pid_t pid = processes_[static_cast<std::size_t>(worker)].pid;
  Find(places_,
       fmt::format("worker {} is stuck (stacks in {}):{}", worker, stacks.native(), doing));
  test::RunCommand(
      fmt::format("gdb -p {} -batch -ex 'thread apply all bt' >{} || cat /proc/{}/task/*/wchan",
                  pid, stacks.native(), pid));
}

void Supervisor::Pause() {
  shared_->phase = Phase::kPause;
  const auto until = Clock::now() + kStuck;
  for (;;) {
    CheckAlive();
    int busy = 0;
    for (int worker = 0; worker < kWorkers; ++worker) busy += IsIdle(worker) ? 0 : 1;
    if (busy == 0 && (!peer_ || peer_->idle())) return;
    if (Clock::now() > until) break;
    std::this_thread::sleep_for(milliseconds(5));
  }
  for (int worker = 0; worker < kWorkers; ++worker) {
    if (IsIdle(worker)) continue;
    ReportStuck(worker);
    KillWorker(worker);
    StartWorker(worker);
  }
}

void Supervisor::RunRound() {
  shared_->phase = Phase::kRun;
  const auto end = Clock::now() + options_.round;
  for (auto next = Clock::now() + kBetweenKills; next <= end; next += kBetweenKills) {
    std::this_thread::sleep_until(next - kBetweenKills / 2);
    Freeze(static_cast<int>(random_() % kWorkers));
    std::this_thread::sleep_until(next);
    CheckAlive();
    // Worker 0 is never killed, to observe what a process accumulates.
    const int worker = 1 + static_cast<int>(random_() % (kWorkers - 1));
    KillWorker(worker);
    StartWorker(worker);
  }
  Pause();
  ++rounds_;
  CheckResources();
  chaos_->Check();
  checker_->CheckRound();
}

void Supervisor::CheckResources() {
  const fs::path process = fs::path("/proc") / std::to_string(processes_[0].pid);
  const std::size_t descriptors = EntriesIn(process / "fd");
  const std::size_t threads = EntriesIn(process / "task");
  if (processes_[0].starts > 1) return;  // The end of the first process was reported.
  if (rounds_ <= kWarmUp) {
    most_descriptors_ = std::max(most_descriptors_, descriptors);
    most_threads_ = std::max(most_threads_, threads);
    return;
  }
  if (descriptors > most_descriptors_ + kSlack) {
    const auto open = test::RunCommand(fmt::format("ls -l {}/fd", process.native()));
    Find(places_, fmt::format("{} open descriptors, at first {}: {}", descriptors,
                              most_descriptors_, open.output));
  }
  if (threads > most_threads_) {
    Find(places_, fmt::format("{} threads, at first {}", threads, most_threads_));
  }
}

void Supervisor::EndWorkers() {
  shared_->phase = Phase::kStop;
  const auto until = Clock::now() + kStuck;
  for (int worker = 0; worker < kWorkers; ++worker) {
    const pid_t pid = processes_[static_cast<std::size_t>(worker)].pid;
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
      if (Clock::now() > until) {
        ReportStuck(worker);
        kill(pid, SIGKILL);
      }
      std::this_thread::sleep_for(milliseconds(10));
    }
    if (status != 0) {
      Find(places_, fmt::format("worker {} ended with wait status {:#x}", worker, status));
    }
  }
}

int Supervisor::Run() {
  MakePlaces();
  chaos_.emplace(places_, *shared_, options_.seed);
  shared_->has_peer = !options_.peer.empty();
  if (!options_.peer.empty()) peer_.emplace(options_.peer, places_, *shared_, options_.seed);
  checker_.emplace(places_, *shared_, *chaos_);
  checker_->Begin();
  for (int worker = 0; worker < kWorkers; ++worker) StartWorker(worker);
  const auto end = Clock::now() + options_.duration;
  do {
    RunRound();
  } while (Clock::now() < end);
  EndWorkers();
  if (peer_) peer_->Stop();
  chaos_->Stop();
  checker_->CheckEmptied();
  const std::uint64_t late = shared_->cancelled_late.load();
  if (late > kMostLateNs) {
    Find(places_, fmt::format("a call returned {} ms after its deadline", late / 1'000'000));
  }
  const std::size_t findings = Report();
  std::fflush(stdout);
  if (findings > 0) {
    fmt::print("kept: {}\n", places_.root.native());
    return 1;
  }
  if (!options_.keep) fs::remove_all(places_.root);
  return 0;
}

std::size_t Supervisor::Report() {
  std::uint64_t operations = 0;
  for (std::size_t op = 0; op < kOps; ++op) {
    std::string line;
    std::uint64_t sum = 0;
    for (std::size_t outcome = 0; outcome < kOutcomes; ++outcome) {
      const std::uint64_t count = shared_->counts[op][outcome].load();
      if (count == 0) continue;
      sum += count;
      line += fmt::format("  {} {}", NameOf(static_cast<Outcome>(outcome)), count);
    }
    operations += sum;
    fmt::print("{:14} {:7} {}\n", NameOf(static_cast<Op>(op)), sum, line);
  }
  if (peer_) {
    for (const auto& [what, count] : peer_->Counts()) {
      fmt::print("{} {} {}\n", options_.peer.filename().native(), what, count);
    }
  }
  fmt::print(
      "{} rounds, {} foreign things placed, {} orphaned overlays seen, "
      "latest return {} ms after a deadline\n",
      rounds_, chaos_->placed_in_all(), checker_->orphans(),
      shared_->cancelled_late.load() / 1'000'000);
  PrintLines("warnings of the library", LinesOf(places_.root / "log.txt"));
  PrintLines("failures of the runtime", LinesOf(places_.root / "peer.txt"));
  const auto findings = LinesOf(places_.root / "findings.log");
  PrintLines("findings", findings);
  fmt::print("soak: {} operations, {} kills, {} findings (seed {})\n", operations, kills_,
             findings.size(), options_.seed);
  return findings.size();
}

}  // namespace msb::soak
