// SPDX-License-Identifier: Apache-2.0

#include "src/registry/origins.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "msb/error.h"
#include "src/base/fields.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/staging.h"

namespace msb::registry {
namespace {

using base::Json;

constexpr std::size_t kMaxFileBytes = 1 << 20;
constexpr std::size_t kMaxOrigins = 1 << 10;

// An entry of the file.
struct Entry {
  std::string object;
  std::string registry;
  std::string repository;
  std::string manifest;

  bool IsSamePlace(const Entry& other) const {
    return object == other.object && registry == other.registry && repository == other.repository;
  }
};

// Returns the entries of the file dir/name, the last used first. Returns none if the file is absent
// or malformed.
std::vector<Entry> Read(int dir, const std::string& name) {
  std::vector<Entry> entries;
  try {
    const base::Entry file = base::OpenEntryAt(dir, name);
    const auto text = file.type == base::EntryType::kRegularFile
                          ? base::ReadAll(file.fd.get(), kMaxFileBytes)
                          : std::nullopt;
    if (!text) return entries;
    const Json document = base::ParseJson(*text);
    const base::Fields fields(document, "", {"origins"}, base::Fields::Others::kIgnore);
    for (const Json& value : fields.At("origins")) {
      const base::Fields entry(value, "origins", {"object", "registry", "repository", "manifest"},
                               base::Fields::Others::kIgnore);
      entries.push_back({entry.Text("object"), entry.Text("registry"), entry.Text("repository"),
                         entry.Digest("manifest", "sha256")});
    }
  } catch (const std::exception&) {
    entries.clear();
  }
  return entries;
}

std::string Write(const std::vector<Entry>& entries) {
  std::string out = R"({"origins":[)";
  for (const Entry& entry : entries) {
    if (out.back() == '}') out += ',';
    base::AppendJsonObject(out, {{"object", entry.object},
                                 {"registry", entry.registry},
                                 {"repository", entry.repository},
                                 {"manifest", entry.manifest}});
  }
  return out + "]}\n";
}

}  // namespace

Origins::Origins(std::filesystem::path file, std::function<void(std::string_view)> log)
    : file_(std::move(file)), log_(std::move(log)) {}

std::vector<Origin> Origins::Find(std::string_view registry, std::string_view object) const {
  std::vector<Origin> origins;
  const base::UniqueFd dir = base::TryOpenDirectory(file_.parent_path());
  if (!dir) return origins;
  for (Entry& entry : Read(dir.get(), file_.filename())) {
    if (entry.registry == registry && entry.object == object) {
      origins.push_back({std::move(entry.repository), std::move(entry.manifest)});
    }
  }
  return origins;
}

void Origins::Add(const std::string& registry, const std::string& repository,
                  const std::vector<Transferred>& objects) noexcept {
  try {
    const base::UniqueFd dir = base::MakeDirectory(file_.parent_path());
    // If another process writes the file at the same time, one of the changes is lost, which only
    // makes later pushes slower.
    std::vector<Entry> entries;
    entries.reserve(objects.size());
    for (const Transferred& object : objects) {
      entries.push_back({object.object, registry, repository, object.manifest});
    }
    const auto is_known = [&](const Entry& old) {
      return std::ranges::any_of(entries,
                                 [&](const Entry& entry) { return entry.IsSamePlace(old); });
    };
    std::vector<Entry> others = Read(dir.get(), file_.filename());
    std::erase_if(others, is_known);
    std::ranges::move(others, std::back_inserter(entries));
    if (entries.size() > kMaxOrigins) entries.resize(kMaxOrigins);
    base::ReplaceFileInStage(file_.parent_path(), file_.filename(), Write(entries), 0666);
  } catch (const std::exception& e) {
    log_(
        fmt::format("cannot record in {} which repository has the snapshots: {}; later pushes may "
                    "take longer",
                    file_.native(), e.what()));
  }
}

}  // namespace msb::registry
