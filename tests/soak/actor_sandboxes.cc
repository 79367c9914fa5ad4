// SPDX-License-Identifier: Apache-2.0
//
// The operations of an actor on sandboxes.

#include <fmt/format.h>

#include <array>
#include <mutex>
#include <tuple>

#include "tests/soak/actor.h"
#include "tests/soak/command.h"

namespace msb::soak {

namespace fs = std::filesystem;

void Actor::MakeSandbox() {
  const std::string name = SandboxName();
  if (OwnSandbox* own = OwnOf(name)) return MakeOwn(*own);
  // A shared sandbox is not locked: any worker may replace it. If detached, it outlives the worker.
  auto sandbox = TryMakeSandbox(name, Chance(0.2));
  if (sandbox) Hold(std::move(*sandbox));
}

std::optional<Sandbox> Actor::TryMakeSandbox(const std::string& name, bool detached) {
  const std::uint64_t id = shared_.next_id++;
  const bool replace = Chance(0.6);
  std::vector<SandboxOption> options = {WithLabel("id", std::to_string(id))};
  if (Chance(0.5)) {
    const bool missing = Chance(0.1);
    const int image = Pick(static_cast<int>(kImages.size()));
    const fs::path path = worker_.places.images /
                          (missing ? "missing.raw" : kImages[static_cast<std::size_t>(image)]);
    options.push_back(WithImage(path.native()));
  } else {
    options.push_back(WithSnapshot(SnapshotKey()));
  }
  if (replace) options.push_back(WithReplace());
  if (detached) options.push_back(WithDetached());
  if (Chance(0.1)) options.push_back(WithOCIUpperSize(4));
  std::optional<Sandbox> sandbox;
  Attempt({.op = Op::kCreateSandbox, .name = name, .id = id, .forced = replace},
          [&](const Context& ctx) {
            sandbox = CreateSandbox(ctx, name, options, AnyClient());
            return std::string();
          });
  return sandbox;
}

void Actor::MakeOwn(OwnSandbox& own) {
  const std::unique_lock lock(own.mutex, std::try_to_lock);
  if (!lock) return;
  auto sandbox = TryMakeSandbox(own.name, /*detached=*/false);
  if (!sandbox) return;
  Close(std::move(*sandbox));
  ReadOwn(own);
}

// Reads the disk of an own sandbox that was just made, and expects it to have a known content.
void Actor::ReadOwn(OwnSandbox& own) {
  own.state.reset();
  try {
    const SandboxUpper upper = GetSandbox(Context::Background(), own.name, worker_.client).Upper();
    const auto content = ReadDisk(upper.path, upper.format, Scratch(".check"));
    if (const auto* wrong = std::get_if<std::string>(&content)) {
      return Report(fmt::format("a new sandbox with wrong content: {}", *wrong));
    }
    own.state = std::get<State>(content);
    *own.torn = false;
  } catch (const Error& e) {
    Report(fmt::format("a sandbox that was made: {}: {}", ErrorKindName(e.kind()), e.what()));
  }
}

void Actor::Restore() {
  const std::string name = SandboxName();
  OwnSandbox* const own = OwnOf(name);
  std::unique_lock<std::shared_mutex> lock;
  if (own != nullptr) {
    lock = std::unique_lock(own->mutex, std::try_to_lock);
    if (!lock) return;
  }
  const Outcome outcome = Attempt({.op = Op::kRestore, .name = name}, [&](const Context& ctx) {
    Snapshot::Restore(ctx, name, SnapshotKey(), AnyClient());
    return std::string();
  });
  if (own != nullptr && outcome == kSuccess) ReadOwn(*own);
}

void Actor::LookAtSandbox() {
  const std::string name = SandboxName();
  Attempt({.op = Op::kGetSandbox, .name = name}, [&](const Context& ctx) {
    std::ignore = GetSandbox(ctx, name, AnyClient());
    return std::string();
  });
}

void Actor::ListAllSandboxes() {
  Attempt({.op = Op::kListSandboxes}, [&](const Context& ctx) {
    std::ignore = ListSandboxes(ctx, AnyClient());
    return std::string();
  });
}

void Actor::Start() {
  const std::string name = SandboxName();
  const auto lock = Share(name);
  std::optional<Sandbox> sandbox;
  Attempt({.op = Op::kStart, .name = name}, [&](const Context& ctx) {
    sandbox = StartSandbox(ctx, name, AnyClient());
    return std::string();
  });
  if (sandbox) Hold(std::move(*sandbox));
}

void Actor::Stop() {
  const std::string name = SandboxName();
  const auto lock = Share(name);
  Attempt({.op = Op::kStop, .name = name}, [&](const Context& ctx) {
    GetSandbox(ctx, name, AnyClient()).Stop(ctx);
    return std::string();
  });
}

void Actor::Kill() {
  const std::string name = SandboxName();
  const auto lock = Share(name);
  Attempt({.op = Op::kKill, .name = name}, [&](const Context& ctx) {
    GetSandbox(ctx, name, AnyClient()).Kill(ctx);
    return std::string();
  });
}

void Actor::DropSandbox() {
  const std::string name = SandboxName();
  const auto lock = Share(name);
  Attempt({.op = Op::kRemoveSandbox, .name = name}, [&](const Context& ctx) {
    RemoveSandbox(ctx, name, AnyClient());
    return std::string();
  });
}

void Actor::Write() {
  OwnSandbox& own = worker_.own[static_cast<std::size_t>(Pick(kOwnSandboxes))];
  const std::unique_lock lock(own.mutex, std::try_to_lock);
  if (lock) WriteOwn(own);
}

namespace {

// Returns true if all hard links to the file are in its own directory, so that a write to it
// changes nothing else.
bool IsOwnFile(const fs::path& file) {
  std::uintmax_t names = 0;
  for (const auto& entry : fs::directory_iterator(file.parent_path())) {
    if (entry.is_regular_file() && fs::equivalent(entry.path(), file)) ++names;
  }
  return fs::hard_link_count(file) == names;
}

}  // namespace

void Actor::WriteOwn(OwnSandbox& own) {
  std::optional<SandboxUpper> upper;
  const Outcome stopped = Attempt({.op = Op::kStop, .name = own.name}, [&](const Context& ctx) {
    const SandboxHandle handle = GetSandbox(ctx, own.name, worker_.client);
    handle.Stop(ctx);
    upper = GetSandbox(Context::Background(), own.name, worker_.client).Upper();
    return std::string();
  });
  if (stopped != kSuccess) return;
  // Usually change only a few slots: qemu-io is slow.
  State after = own.state.value_or(State());
  const bool all = !own.state;
  for (std::size_t slot = 1; slot < kSlots; ++slot) {
    if (all || Chance(0.3)) after.stamps[slot] = shared_.next_id++;
  }
  Attempt({.op = Op::kWrite, .name = own.name}, [&](const Context&) {
    if (!IsOwnFile(upper->path)) {
      Report(fmt::format("{} has other names, and must not be written", upper->path));
      return std::string();
    }
    *own.torn = true;
    const bool written = WriteDisk(upper->path, upper->format, own.state, after, Scratch(".write"));
    own.state.reset();
    if (written) {
      own.state = after;
      *own.torn = false;
    }
    return std::string();
  });
}

}  // namespace msb::soak
