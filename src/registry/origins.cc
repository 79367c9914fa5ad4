// SPDX-License-Identifier: Apache-2.0

#include "src/registry/origins.h"

#include <fmt/format.h>

#include <algorithm>
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

struct Origin {
  std::string snapshot;
  std::string registry;
  std::string repository;

  bool operator==(const Origin&) const = default;
};

// Returns the origins in the file dir/name, the last used first. Returns none if the file is absent
// or malformed.
std::vector<Origin> Read(int dir, const std::string& name) {
  std::vector<Origin> origins;
  try {
    const base::Entry entry = base::OpenEntryAt(dir, name);
    const auto text = entry.type == base::EntryType::kRegularFile
                          ? base::ReadAll(entry.fd.get(), kMaxFileBytes)
                          : std::nullopt;
    if (!text) return origins;
    const Json document = base::ParseJson(*text);
    const base::Fields fields(document, "", {"origins"}, base::Fields::Others::kIgnore);
    for (const Json& value : fields.At("origins")) {
      const base::Fields origin(value, "origins", {"snapshot", "registry", "repository"},
                                base::Fields::Others::kIgnore);
      origins.push_back({origin.Digest("snapshot", "sha256"), origin.Text("registry"),
                         origin.Text("repository")});
    }
  } catch (const std::exception&) {
    origins.clear();
  }
  return origins;
}

std::string Write(const std::vector<Origin>& origins) {
  std::string out = R"({"origins":[)";
  for (const Origin& origin : origins) {
    if (out.back() == '}') out += ',';
    base::AppendJsonObject(out, {{"snapshot", origin.snapshot},
                                 {"registry", origin.registry},
                                 {"repository", origin.repository}});
  }
  return out + "]}\n";
}

}  // namespace

Origins::Origins(std::filesystem::path file, std::function<void(std::string_view)> log)
    : file_(std::move(file)), log_(std::move(log)) {}

std::vector<std::string> Origins::Find(std::string_view registry,
                                       const base::Digest& snapshot) const {
  std::vector<std::string> repositories;
  const base::UniqueFd dir = base::TryOpenDirectory(file_.parent_path());
  if (!dir) return repositories;
  for (Origin& origin : Read(dir.get(), file_.filename())) {
    if (origin.registry == registry && origin.snapshot == snapshot.ToString()) {
      repositories.push_back(std::move(origin.repository));
    }
  }
  return repositories;
}

void Origins::Add(const std::string& registry, const std::string& repository,
                  const std::vector<base::Digest>& snapshots) noexcept {
  try {
    const base::UniqueFd dir = base::MakeDirectory(file_.parent_path());
    // If another process writes the file at the same time, one of the changes is lost, which only
    // makes later pushes slower.
    std::vector<Origin> origins;
    origins.reserve(snapshots.size());
    for (const base::Digest& snapshot : snapshots) {
      origins.push_back({snapshot.ToString(), registry, repository});
    }
    for (Origin& origin : Read(dir.get(), file_.filename())) {
      if (std::ranges::find(origins, origin) == origins.end()) origins.push_back(std::move(origin));
    }
    if (origins.size() > kMaxOrigins) origins.resize(kMaxOrigins);
    base::ReplaceFileInStage(file_.parent_path(), file_.filename(), Write(origins), 0666);
  } catch (const std::exception& e) {
    log_(
        fmt::format("cannot record in {} which repository has the snapshots: {}; later pushes may "
                    "take longer",
                    file_.native(), e.what()));
  }
}

}  // namespace msb::registry
