// SPDX-License-Identifier: Apache-2.0

#include "src/archive/member_hash.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/fixture_archive.h"
#include "tests/support/support.h"

namespace msb::archive {
namespace {

using nlohmann::json;
using test::Bytes;
using test::FixtureEntry;

std::vector<disk::Extent> ExtentsOf(const FixtureEntry& entry) {
  std::vector<disk::Extent> ranges;
  for (const auto& [offset, length] : entry.ranges) ranges.push_back({offset, length});
  return ranges;
}

std::string HashOf(std::string_view kind, const FixtureEntry& entry) {
  MemberHasher hasher(kind, entry.path, entry.stored.size(), entry.apparent_size, ExtentsOf(entry));
  hasher.Update(Bytes(entry.stored));
  return hasher.Finish();
}

const FixtureEntry& EntryAt(const std::vector<FixtureEntry>& entries, const std::string& path) {
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const FixtureEntry& entry) { return entry.path == path; });
  if (found == entries.end()) throw std::logic_error("no entry " + path);
  return *found;
}

TEST(MemberHashTest, MatchesTheHashesOfReleases) {
  for (const std::string release : {"0.6.18", "0.7.2"}) {
    const auto entries = test::ReadFixtureArchive(release, "labelled-with-image.tar.zst");
    ASSERT_EQ(entries.back().path, "archive.json");
    const json inventory = json::parse(entries.back().stored);
    ASSERT_EQ(inventory["entries"].size(), entries.size() - 1);
    for (const json& listed : inventory["entries"]) {
      EXPECT_EQ(listed["transport_integrity"]["algorithm"], kMemberHash);
      EXPECT_EQ(listed["transport_integrity"]["digest"],
                HashOf(listed["kind"].get<std::string>(), EntryAt(entries, listed["path"])))
          << release << " " << listed["path"];
    }
  }
}

TEST(MemberHashTest, IsTheSameHoweverTheBytesAreCut) {
  const FixtureEntry entry{"files/a", std::string(5000, 'x'), 5000};
  MemberHasher hasher("file-payload", entry.path, 5000, 5000, {});
  hasher.Update(Bytes(entry.stored).first(1));
  hasher.Update({});
  hasher.Update(Bytes(entry.stored).subspan(1, 3000));
  hasher.Update(Bytes(entry.stored).subspan(3001));
  EXPECT_EQ(hasher.Finish(), HashOf("file-payload", entry));
}

TEST(MemberHashTest, IsOfAllThatItIsGiven) {
  const FixtureEntry entry{"ab", "content", 4096, {{0, 7}, {4096, 0}}};
  std::set<std::string> hashes = {HashOf("kind", entry), HashOf("kin", entry)};
  // The lengths distinguish values whose concatenated bytes are equal.
  for (FixtureEntry other :
       {FixtureEntry{"dab", "content", 4096, {{0, 7}, {4096, 0}}},
        FixtureEntry{"ab", "Content", 4096, {{0, 7}, {4096, 0}}},
        FixtureEntry{"ab", "content", 4097, {{0, 7}, {4096, 0}}},
        FixtureEntry{"ab", "content", 4096, {{0, 7}}}, FixtureEntry{"ab", "content", 4096, {}},
        FixtureEntry{"ab", "content", 4096, {{0, 7}, {4095, 1}}},
        FixtureEntry{"ab", "content", 4096, {{4096, 0}, {0, 7}}}}) {
    hashes.insert(HashOf(other.path == "dab" ? "kin" : "kind", other));
  }
  EXPECT_EQ(hashes.size(), 9U);
}

}  // namespace
}  // namespace msb::archive
