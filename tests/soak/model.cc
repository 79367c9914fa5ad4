// SPDX-License-Identifier: Apache-2.0

#include "tests/soak/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>

namespace msb::soak {
namespace {

constexpr std::size_t kLongestName = 8;  // Longest name that the workers choose.
constexpr auto kNever = std::numeric_limits<std::uint64_t>::max();

bool Makes(Kind kind, Op op) {
  return kind == Kind::kSandboxes ? op == Op::kCreateSandbox
                                  : op == Op::kCreate || op == Op::kSquash || op == Op::kImport;
}

bool Removes(Kind kind, Op op) {
  return op == (kind == Kind::kSandboxes ? Op::kRemoveSandbox : Op::kRemove);
}

// The operations on one name.
struct History {
  std::vector<Event> made;     // Includes the state before the round, at time 0.
  std::vector<Event> removed;  // By name or digest.
  std::vector<Event> failed;   // Failed operations that would have made it.
};

class Model {
 public:
  Model(Kind kind, const Namespace& before, const std::vector<Event>& events)
      : kind_(kind), before_(before), events_(events) {}

  std::optional<std::string> Explain(const std::string& name, const Seen* seen) const {
    const History history = HistoryOf(name);
    const auto wrong =
        seen != nullptr ? ExplainPresent(name, history, *seen) : ExplainAbsent(history);
    if (!wrong) return std::nullopt;
    std::string text = fmt::format("{} {}", name, *wrong);
    for (const auto* list : {&history.made, &history.removed, &history.failed}) {
      for (const Event& event : *list) text += "; " + event.Describe();
    }
    return text;
  }

 private:
  History HistoryOf(const std::string& name) const {
    History history;
    if (const auto was = before_.find(name); was != before_.end()) {
      history.made.push_back({.begin = 0,
                              .end = 1,
                              .id = was->second.id,
                              .op = kind_ == Kind::kSandboxes ? Op::kCreateSandbox : Op::kCreate,
                              .name = name,
                              .digest = was->second.digest});
    }
    for (const Event& event : events_) {
      if (event.name != name || !Makes(kind_, event.op)) continue;
      (event.MayHaveHappened() ? history.made : history.failed).push_back(event);
    }
    for (const Event& event : events_) {
      if (!Removes(kind_, event.op) || !event.MayHaveHappened()) continue;
      const bool by_digest =
          event.name.empty() && std::ranges::any_of(history.made, [&](const Event& made) {
            return made.digest == event.digest || made.unfinished();
          });
      if (event.name == name || by_digest) history.removed.push_back(event);
    }
    return history;
  }

  std::optional<std::string> ExplainPresent(const std::string& name, const History& history,
                                            const Seen& seen) const {
    // Imported snapshots are named after their digest; all other names are short.
    const bool imported = kind_ == Kind::kSnapshots && name.size() > kLongestName;
    // The time at which the last operation ended that may have made it.
    std::optional<std::uint64_t> made_by;
    for (const Event& event : history.made) {
      const bool same = event.op == Op::kImport ? event.unfinished() || event.digest == seen.digest
                                                : event.id == seen.id;
      if (same) made_by = std::max(made_by.value_or(0), event.end);
    }
    // An import makes the parents, too, and an import that was cut off returned no name.
    for (const Event& event : events_) {
      if (!imported || event.op != Op::kImport || !event.MayHaveHappened()) continue;
      made_by = std::max(made_by.value_or(0), event.end);
    }
    if (!made_by) return fmt::format("is there (id {}), but was made by nothing", seen.id);
    for (const auto* list : {&history.made, &history.removed}) {
      for (const Event& event : *list) {
        if (event.unfinished() || event.begin <= *made_by) continue;
        // A removal by digest may have removed another copy.
        if (event.name.empty()) continue;
        return fmt::format("is there (id {}), but was replaced or removed later", seen.id);
      }
    }
    return std::nullopt;
  }

  static std::optional<std::string> ExplainAbsent(const History& history) {
    std::uint64_t last_made = 0;
    bool made = false;
    for (const Event& event : history.made) {
      if (event.unfinished()) continue;
      made = true;
      last_made = std::max(last_made, event.begin);
    }
    if (!made) return std::nullopt;
    const bool removed = std::ranges::any_of(
        history.removed, [&](const Event& event) { return event.end > last_made; });
    if (removed) return std::nullopt;
    return "was lost: it was made, and nothing removed it";
  }

  const Kind kind_;
  const Namespace& before_;
  const std::vector<Event>& events_;
};

}  // namespace

bool Event::unfinished() const { return end == kNever; }

std::string Event::Describe() const {
  return fmt::format("{}{} '{}' id {} {} from {} to {}: {}", NameOf(op), forced ? "(force)" : "",
                     name, id, digest.substr(0, 15), begin / 1000, unfinished() ? 0 : end / 1000,
                     unfinished() ? "cut off" : NameOf(outcome));
}

std::vector<Event> EventsOf(const Shared& shared) {
  std::vector<Event> events;
  const auto add = [&](const Slot& slot) {
    for (std::uint32_t i = 0; i < slot.used.load(); ++i) {
      const Record& record = slot.records[i];
      const std::uint64_t end = record.end.load();
      events.push_back({.begin = record.begin,
                        .end = end == 0 ? kNever : end,
                        .id = record.id,
                        .op = record.op,
                        .outcome = record.outcome,
                        .forced = record.forced,
                        .name = record.name.data(),
                        .digest = record.digest.data()});
    }
  };
  for (const auto& worker : shared.slots) std::ranges::for_each(worker, add);
  add(shared.peer);
  std::ranges::sort(events, {}, &Event::begin);
  return events;
}

std::vector<std::string> Unexplained(Kind kind, const Namespace& before, const Namespace& now,
                                     const std::vector<Event>& events) {
  std::set<std::string> names;
  for (const auto& [name, seen] : before) names.insert(name);
  for (const auto& [name, seen] : now) names.insert(name);
  for (const Event& event : events) {
    if (!event.name.empty() && (Makes(kind, event.op) || Removes(kind, event.op))) {
      names.insert(event.name);
    }
  }
  const Model model(kind, before, events);
  std::vector<std::string> wrong;
  for (const std::string& name : names) {
    // Outside the snapshots directory, as in "@elsewhere": imports there are checked at once.
    if (name.starts_with("@") && kind == Kind::kSnapshots) continue;
    const auto seen = now.find(name);
    auto text = model.Explain(name, seen == now.end() ? nullptr : &seen->second);
    if (text) wrong.push_back(*std::move(text));
  }
  return wrong;
}

}  // namespace msb::soak
