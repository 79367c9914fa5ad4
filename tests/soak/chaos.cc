// SPDX-License-Identifier: Apache-2.0

#include "tests/soak/chaos.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstdio>

#include "msb/error.h"
#include "src/base/sqlite.h"
#include "tests/soak/worker.h"
#include "tests/support/support.h"

namespace msb::soak {
namespace {

namespace fs = std::filesystem;

constexpr auto kPause = std::chrono::milliseconds(30);
constexpr auto kIndexLock = std::chrono::milliseconds(200);
constexpr std::size_t kMost = 3;

ino_t InodeOf(const fs::path& path) {
  struct stat stat;
  return lstat(path.c_str(), &stat) == 0 ? stat.st_ino : 0;
}

std::string ContentOf(int number) { return fmt::format("somebody else's {}\n", number); }

bool Rename(const fs::path& from, const fs::path& to) {
  return renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0;
}

}  // namespace

Chaos::Chaos(const Places& places, const Shared& shared, std::uint64_t seed)
    : places_(places),
      shared_(shared),
      random_(seed),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

void Chaos::Run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    std::this_thread::sleep_for(kPause);
    const std::lock_guard lock(mutex_);
    if (shared_.phase.load() != Phase::kRun) continue;
    if (random_() % 16 == 0) RenewImage();
    if (random_() % 64 == 0) LockIndex();
    if (things_.size() < kMost) Place();
    if (!things_.empty() && random_() % 4 == 0) TakeAway(random_() % things_.size());
  }
}

Chaos::Thing Chaos::Make(int number) {
  const fs::path path = places_.foreign / std::to_string(number);
  Thing thing{.number = number, .is_file = random_() % 4 == 0};
  if (thing.is_file) {
    test::WriteFile(path, ContentOf(number));
  } else {
    // The disk that a runtime keeps in a sandbox's directory, and a user's file.
    test::WriteFile(path / "upper.ext4", ContentOf(number));
    test::WriteFile(path / "notes" / "mine.txt", ContentOf(number));
  }
  thing.at = path;
  thing.inode = InodeOf(path);
  return thing;
}

void Chaos::Place() {
  fs::path at;
  switch (random_() % 5) {
    case 0:
    case 1:
      at = places_.home / "snapshots" /
           SharedSnapshot(static_cast<int>(random_() % kSharedSnapshots));
      break;
    case 2:
    case 3:
      at = places_.home / "sandboxes" /
           SharedSandbox(static_cast<int>(random_() % kSharedSandboxes));
      break;
    default:
      at = places_.out / fmt::format("f{}.tar", random_() % kForeignArchives);
      // A file here is an archive and may go; a directory was placed by this thread and must stay.
      if (!fs::is_directory(at)) fs::remove(at);
      break;
  }
  if (!fs::is_directory(at.parent_path())) return;
  Thing thing = Make(placed_in_all_.load());
  if (at.parent_path() == places_.out && thing.is_file) {
    // An export may replace a file, so only directories are placed here.
    fs::remove_all(thing.at);
    return;
  }
  if (!Rename(thing.at, at)) {
    fs::remove_all(thing.at);
    return;
  }
  thing.at = at;
  things_.push_back(thing);
  ++placed_in_all_;
}

void Chaos::RenewImage() {
  const fs::path image = places_.images / kImages[random_() % kImages.size()];
  const fs::path copy = places_.images / "renewed";
  fs::copy_file(image, copy, fs::copy_options::overwrite_existing);
  fs::rename(copy, image);
}

void Chaos::LockIndex() const {
  for (const char* name : {"msb.db", "snapshots.db"}) {
    const fs::path path = places_.home / "db" / name;
    if (!fs::exists(path)) continue;
    try {
      base::Database database(path, base::Database::Mode::kReadWrite);
      const base::Transaction transaction(database);
      std::this_thread::sleep_for(kIndexLock);
    } catch (const Error&) {
      // The index is in use.
    }
    return;
  }
}

void Chaos::CheckThing(const Thing& thing) {
  if (InodeOf(thing.at) != thing.inode) {
    return Find(places_, fmt::format("the foreign {} was lost or replaced", thing.at.native()));
  }
  std::vector<fs::path> files = {thing.at};
  if (!thing.is_file) files = {thing.at / "upper.ext4", thing.at / "notes" / "mine.txt"};
  for (const fs::path& file : files) {
    std::string content;
    try {
      content = test::ReadFile(file);
    } catch (const std::exception& e) {
      content = e.what();
    }
    if (content == ContentOf(thing.number)) continue;
    Find(places_, fmt::format("the foreign {} was changed: {}", file.native(), content));
  }
}

void Chaos::TakeAway(std::size_t index) {
  Thing thing = things_[index];
  things_.erase(things_.begin() + static_cast<std::ptrdiff_t>(index));
  CheckThing(thing);
  const fs::path away = places_.foreign / fmt::format("away-{}", thing.number);
  if (!Rename(thing.at, away)) {
    return Find(places_, fmt::format("the foreign {} cannot be moved away: errno {}",
                                     thing.at.native(), errno));
  }
  thing.at = away;
  CheckThing(thing);
  fs::remove_all(away);
}

void Chaos::Check() {
  const std::lock_guard lock(mutex_);
  for (const Thing& thing : things_) CheckThing(thing);
}

bool Chaos::IsPlaced(const fs::path& path) const {
  const std::lock_guard lock(mutex_);
  for (const Thing& thing : things_) {
    if (thing.at == path) return true;
  }
  return false;
}

void Chaos::Stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
  const std::lock_guard lock(mutex_);
  while (!things_.empty()) TakeAway(things_.size() - 1);
}

}  // namespace msb::soak
