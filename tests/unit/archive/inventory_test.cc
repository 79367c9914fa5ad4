// SPDX-License-Identifier: Apache-2.0

#include "src/archive/inventory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "src/archive/limits.h"
#include "src/archive/member_hash.h"
#include "src/artifact/manifest.h"
#include "src/base/digest.h"
#include "tests/support/fixture_archive.h"
#include "tests/support/support.h"

namespace msb::archive {
namespace {

using nlohmann::json;
using test::FixtureEntry;
using testing::HasSubstr;
using testing::StartsWith;
using Pointer = json::json_pointer;

const std::string kAlone = "labelled.tar.zst";
const std::string kWithImage = "labelled-with-image.tar.zst";

Member ArrivedMember(const FixtureEntry& entry) {
  const auto path = ParseMemberPath(entry.path);
  if (!path) throw std::logic_error("no member: " + entry.path);
  Member member{.path = entry.path,
                .kind = path->kind,
                .encoded_size = entry.stored.size(),
                .apparent_size = entry.apparent_size,
                .integrity = {{"sha256", base::Sha256Digest(entry.stored)}}};
  for (const auto& [offset, length] : entry.ranges) member.ranges.push_back({offset, length});
  MemberHasher hasher(KindName(member.kind), member.path, member.encoded_size, member.apparent_size,
                      member.ranges);
  hasher.Update(std::as_bytes(std::span(entry.stored)));
  member.transport_digest = hasher.Finish();
  return member;
}

// Returns what an archive of one snapshot has, determined without its inventory.
Inventory Arrived(Layout layout, const std::vector<FixtureEntry>& entries) {
  Inventory arrived;
  arrived.layout = layout;
  arrived.suggested_name = "labelled";
  artifact::Manifest manifest;
  for (const FixtureEntry& entry : entries) {
    if (entry.path == kInventoryPath) continue;
    Member member = ArrivedMember(entry);
    if (member.kind == MemberKind::kManifest) {
      manifest = artifact::ParseSnapshotJson(entry.stored, entry.path);
      arrived.head = layout == Layout::kLayered ? manifest.snapshot_id : manifest.digest;
      arrived.snapshots = {{arrived.head, entry.path, base::Sha256Digest(entry.stored)}};
    }
    const bool of_image =
        member.kind == MemberKind::kImageMetadata || member.kind == MemberKind::kImageObject;
    if (!of_image) member.owner = arrived.head;
    if (of_image) arrived.with_image = true;
    if (member.kind == MemberKind::kPayload) member.integrity = manifest.layers.at(0).integrity;
    arrived.members.push_back(std::move(member));
  }
  return arrived;
}

struct Fixture {
  explicit Fixture(const std::string& release, const std::string& name = kWithImage) {
    const auto entries = test::ReadFixtureArchive(release, name);
    arrived = Arrived(release == "0.7.2" ? Layout::kLayered : Layout::kInventory, entries);
    text = entries.back().stored;
    document = json::parse(text);
  }

  std::string text;
  json document;
  Inventory arrived;
};

// Returns the message with which text is refused.
std::string Refusal(const Fixture& fixture, const std::string& text,
                    ErrorKind kind = ErrorKind::kSnapshotIntegrity) {
  try {
    CheckInventory(text, fixture.arrived);
  } catch (const Error& e) {
    EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(kind)) << e.what();
    if (kind == ErrorKind::kSnapshotIntegrity) {
      EXPECT_THAT(e.what(), StartsWith("archive.json: "));
    } else {
      EXPECT_THAT(e.what(), HasSubstr("archive"));
    }
    return e.what();
  }
  ADD_FAILURE() << "accepted: " << text;
  return {};
}

std::string With(const Fixture& fixture, const Pointer& field, const json& value) {
  json document = fixture.document;
  document[field] = value;
  return document.dump();
}

std::string With(const Fixture& fixture, const std::string& field, const json& value) {
  return With(fixture, Pointer(field), value);
}

// Collects pointers to all values of the document, except those within "extensions".
void CollectPointers(const json& value, const Pointer& at, std::vector<Pointer>& pointers) {
  if (!at.empty()) pointers.push_back(at);
  if (at.to_string() == "/extensions" || !value.is_structured()) return;
  for (const auto& [key, member] : value.items()) {
    CollectPointers(member, value.is_array() ? at / std::stoul(key) : at / key, pointers);
  }
}

std::vector<Pointer> AllPointers(const json& document) {
  std::vector<Pointer> pointers;
  CollectPointers(document, Pointer(), pointers);
  return pointers;
}

ErrorKind KindFor(const Pointer& field, const json& value) {
  const std::string at = field.to_string();
  const bool unknown = (at == "/completeness" && value.is_string() && value != "") ||
                       (at == "/requires/0" && value.is_string());
  return unknown ? ErrorKind::kUnsupportedOperation : ErrorKind::kSnapshotIntegrity;
}

// Returns true for values that the archive itself does not determine.
bool IsOpen(const Pointer& field, const json& value) {
  const std::string at = field.to_string();
  return (at == "/suggested_name" && (value.is_null() || (value.is_string() && value != ""))) ||
         (at == "/with_parents" && value.is_boolean()) ||
         (at == "/extensions" && value.is_object());
}

class InventoryCheckTest : public testing::TestWithParam<const char*> {
 protected:
  void ExpectRefused(const Pointer& field, const json& value) const {
    if (IsOpen(field, value)) {
      EXPECT_NO_THROW(CheckInventory(With(fixture_, field, value), fixture_.arrived)) << field;
      return;
    }
    SCOPED_TRACE(field.to_string() + " = " + value.dump());
    Refusal(fixture_, With(fixture_, field, value), KindFor(field, value));
  }

  bool layered() const { return fixture_.arrived.layout == Layout::kLayered; }

  // Adds a second snapshot, without members, to the archive.
  void AddSnapshot(const std::string& id) {
    const std::string list = layered() ? "members" : "snapshots";
    const std::string path = "snapshots/" + id + "/snapshot.json";
    fixture_.arrived.snapshots.push_back({id, path, "sha256:" + std::string(64, '0')});
    json snapshot = {{"snapshot_id", id}, {layered() ? "descriptor_path" : "descriptor", path}};
    if (layered()) snapshot["descriptor_digest"] = "sha256:" + std::string(64, '0');
    fixture_.document[list].push_back(snapshot);
  }

  json& Entry(MemberKind kind) {
    for (json& entry : fixture_.document["entries"]) {
      if (entry["kind"] == KindName(kind)) return entry;
    }
    throw std::logic_error("no such entry");
  }

  Member& ArrivedOne(MemberKind kind) {
    for (Member& member : fixture_.arrived.members) {
      if (member.kind == kind) return member;
    }
    throw std::logic_error("no such member");
  }

  void ExpectAccepted() const {
    EXPECT_NO_THROW(CheckInventory(fixture_.document.dump(), fixture_.arrived));
  }

  Fixture fixture_{GetParam()};
};

TEST_P(InventoryCheckTest, AcceptsInventoriesOfReleases) {
  EXPECT_NO_THROW(CheckInventory(fixture_.text, fixture_.arrived));
  const Fixture alone(GetParam(), kAlone);
  EXPECT_NO_THROW(CheckInventory(alone.text, alone.arrived));
}

TEST_P(InventoryCheckTest, TheOrderOfMembersAndFieldsDoesNotMatter) {
  std::reverse(fixture_.arrived.members.begin(), fixture_.arrived.members.end());
  EXPECT_NO_THROW(CheckInventory(fixture_.text, fixture_.arrived));
  EXPECT_NO_THROW(CheckInventory(fixture_.document.dump(2), fixture_.arrived));
}

TEST_P(InventoryCheckTest, NoFieldMayBeMissing) {
  for (const Pointer& field : AllPointers(fixture_.document)) {
    if (!fixture_.document[field.parent_pointer()].is_object()) continue;
    json document = fixture_.document;
    document.at(field.parent_pointer()).erase(field.back());
    EXPECT_THAT(Refusal(fixture_, document.dump()), HasSubstr(field.back() + " is missing"));
  }
}

TEST_P(InventoryCheckTest, NoFieldMayBeAdded) {
  Refusal(fixture_, With(fixture_, "/extra", nullptr));
  for (const Pointer& field : AllPointers(fixture_.document)) {
    if (!fixture_.document[field].is_object() || field.to_string() == "/extensions") continue;
    EXPECT_THAT(Refusal(fixture_, With(fixture_, field / "extra", nullptr)), HasSubstr("extra"));
  }
}

TEST_P(InventoryCheckTest, NoFieldMayBeOfTheOtherForm) {
  const Fixture other(layered() ? "0.6.18" : "0.7.2");
  Refusal(fixture_, other.text);
  for (const auto& [key, value] : other.document.items()) {
    if (fixture_.document.contains(key)) continue;
    EXPECT_THAT(Refusal(fixture_, With(fixture_, "/" + key, value)), HasSubstr(key));
  }
}

TEST_P(InventoryCheckTest, NoFieldMayBeTwice) {
  for (const std::string field : {"head", "path", "algorithm", "requires"}) {
    std::string text = fixture_.text;
    const std::string key = "\"" + field + "\":";
    text.insert(text.find(key), key + "\"x\",");
    EXPECT_THAT(Refusal(fixture_, text), HasSubstr("duplicate object key"));
  }
}

TEST_P(InventoryCheckTest, NoFieldMayBeOfAnotherType) {
  const std::vector<json> values = {
      nullptr, true, false, 7U, -1, 1.5, "?", "", json::array(), json::object(), json::array({1U})};
  for (const Pointer& field : AllPointers(fixture_.document)) {
    for (const json& value : values) {
      const json& right = fixture_.document[field];
      if (right == value) continue;
      // The first is valid, since an early release wrote it; the second is an unknown feature.
      if (field.to_string() == "/requires" && value == json::array()) continue;
      if (field.to_string() == "/protection_requirements" && value == json::array({1U})) continue;
      ExpectRefused(field, value);
    }
  }
}

TEST_P(InventoryCheckTest, NoFieldMayHaveAnotherValue) {
  for (const Pointer& field : AllPointers(fixture_.document)) {
    const json& right = fixture_.document[field];
    if (right.is_number_unsigned()) {
      const auto number = right.get<std::uint64_t>();
      for (const json& value : {json(number + 1), json(number + 512), json(number - 1),
                                json(static_cast<double>(number)), json(std::to_string(number))}) {
        ExpectRefused(field, value);
      }
    } else if (right.is_string()) {
      const auto text = right.get<std::string>();
      std::string changed = text;
      changed.back() = changed.back() == '0' ? '1' : '0';
      for (const std::string& value : {changed, text + "0", text.substr(1), " " + text}) {
        ExpectRefused(field, value);
      }
    }
  }
}

TEST_P(InventoryCheckTest, NoElementMayBeMissingTwiceOrInAnotherPlace) {
  for (const Pointer& field : AllPointers(fixture_.document)) {
    const json& list = fixture_.document[field];
    if (!list.is_array()) continue;
    for (std::size_t i = 0; i < list.size(); ++i) {
      using Difference = json::difference_type;
      json shorter = list;
      shorter.erase(shorter.begin() + static_cast<Difference>(i));
      if (field.to_string() != "/requires") ExpectRefused(field, shorter);
      json longer = list;
      longer.insert(longer.begin() + static_cast<Difference>(i), list[i]);
      ExpectRefused(field, longer);
      json swapped = list;
      std::swap(swapped[i], swapped[(i + 1) % list.size()]);
      if (swapped != list) ExpectRefused(field, swapped);
    }
  }
}

TEST_P(InventoryCheckTest, NamesMissingAndUnexpectedEntries) {
  json document = fixture_.document;
  document["entries"].erase(document["entries"].size() - 1);
  EXPECT_THAT(Refusal(fixture_, document.dump()),
              HasSubstr(fixture_.document["entries"].back()["path"].get<std::string>()));
  document = fixture_.document;
  document["entries"].push_back({{"path", "zoo"}});
  EXPECT_THAT(Refusal(fixture_, document.dump()), HasSubstr("'zoo'"));
}

TEST_P(InventoryCheckTest, RefusesMembersThatAreNotListed) {
  Inventory more = fixture_.arrived;
  more.members.push_back(more.members[0]);
  more.members.back().path = "files/" + std::string(64, '0') + "/upper.ext4";
  EXPECT_MSB_ERROR(CheckInventory(fixture_.text, more), ErrorKind::kSnapshotIntegrity,
                   "archive.json: entries[0].path is ", ", not \"files/000");
  more = fixture_.arrived;
  more.snapshots.push_back(more.snapshots[0]);
  EXPECT_MSB_ERROR(CheckInventory(fixture_.text, more), ErrorKind::kSnapshotIntegrity,
                   "archive.json: ", " has 1 element, not 2", "copy or export the archive again");
}

TEST_P(InventoryCheckTest, TheSuggestedNameIsOneFileName) {
  for (const std::string& name :
       {std::string(1, 'a'), std::string(255, 'a'), std::string("caf\xc3\xa9: 1\\2")}) {
    EXPECT_NO_THROW(CheckInventory(With(fixture_, "/suggested_name", name), fixture_.arrived));
  }
  for (const std::string& name :
       {std::string(), std::string(256, 'a'), std::string("a/b"), std::string("/"),
        std::string("."), std::string(".."), std::string("a\nb"), std::string("\x7f"),
        std::string("a\0b", 3)}) {
    EXPECT_THAT(Refusal(fixture_, With(fixture_, "/suggested_name", name)),
                HasSubstr("suggested_name"));
  }
}

TEST_P(InventoryCheckTest, ExtensionsMayBeAnything) {
  for (const json& extensions : {json::object(), json{{"a", nullptr}, {"b", {1, -2, 3.5}}},
                                 json{{"msb-snapshot-member-names", {{"snap_1", "one"}}}}}) {
    EXPECT_NO_THROW(CheckInventory(With(fixture_, "/extensions", extensions), fixture_.arrived));
  }
}

TEST_P(InventoryCheckTest, AnIncrementalArchiveNamesTheSnapshotsItNeeds) {
  const bool layered = fixture_.arrived.layout == Layout::kLayered;
  const std::string key(kBackingExtension);
  const std::string digest = "sha256:" + std::string(64, 'a');
  json document = fixture_.document;
  const auto set = [&](const json& needed) {
    document["extensions"] = {{key, needed}};
    document["requires"] = {kMemberHash, key};
    document["completeness"] = "incremental";
    return document.dump();
  };
  if (layered) {
    Refusal(fixture_, set({digest}), ErrorKind::kUnsupportedOperation);
    return;
  }
  EXPECT_THAT(CheckInventory(set({digest}), fixture_.arrived), testing::ElementsAre(digest));
  for (const json& bad :
       {json(), json(digest), json::array(), json{{"a", digest}}, json{digest, 1}, json{"x"},
        json{digest + "0"}, json{"blake3:" + std::string(64, 'a')}, json(2000, digest)}) {
    EXPECT_THAT(Refusal(fixture_, set(bad)), HasSubstr(key));
  }
  set({digest});
  document["completeness"] = "boot-complete";
  EXPECT_THAT(Refusal(fixture_, document.dump()), HasSubstr("completeness"));
  set({digest});
  document["requires"] = {kMemberHash};
  EXPECT_THAT(Refusal(fixture_, document.dump(), ErrorKind::kUnsupportedOperation),
              HasSubstr("incremental"));
  document["requires"] = {key, key};
  EXPECT_THAT(Refusal(fixture_, document.dump()), HasSubstr("twice"));
}

TEST_P(InventoryCheckTest, RefusesUnknownFeaturesAsUnsupported) {
  constexpr auto kUnsupported = ErrorKind::kUnsupportedOperation;
  EXPECT_THAT(Refusal(fixture_, With(fixture_, "/requires", {kMemberHash, "new"}), kUnsupported),
              HasSubstr("'new'"));
  EXPECT_THAT(Refusal(fixture_, With(fixture_, "/requires", {"new"}), kUnsupported),
              HasSubstr("release that wrote it"));
  EXPECT_THAT(Refusal(fixture_, With(fixture_, "/completeness", "partial"), kUnsupported),
              HasSubstr("export"));
  if (layered()) return;
  EXPECT_THAT(Refusal(fixture_, With(fixture_, "/protection_requirements", {"key"}), kUnsupported),
              HasSubstr("protection_requirements"));
}

TEST_P(InventoryCheckTest, WithoutTheRequirementTransportIntegrityMayBeMissingButNotWrong) {
  fixture_.document["requires"] = json::array();
  ExpectAccepted();
  json& transport = fixture_.document["entries"][1]["transport_integrity"];
  transport["digest"] = "blake3:" + std::string(64, '0');
  EXPECT_THAT(Refusal(fixture_, fixture_.document.dump()), HasSubstr("transport_integrity"));
  transport = nullptr;
  EXPECT_THAT(Refusal(fixture_, fixture_.document.dump()), HasSubstr("transport_integrity"));
  for (json& entry : fixture_.document["entries"]) entry.erase("transport_integrity");
  ExpectAccepted();
}

TEST_P(InventoryCheckTest, IntegrityMustMatchTheManifest) {
  auto& arrived = ArrivedOne(MemberKind::kPayload).integrity;
  json& listed = Entry(MemberKind::kPayload)["integrity"];
  const std::string digest = "sha256:" + std::string(64, '1');
  for (const std::string algorithm : {"sha256", "msb-sparse-sha256-v1"}) {
    arrived = {algorithm, digest};
    Refusal(fixture_, fixture_.document.dump());
    listed = {{"algorithm", algorithm}, {"digest", digest}};
    ExpectAccepted();
  }
  arrived = {"sha256", digest};
  EXPECT_THAT(Refusal(fixture_, fixture_.document.dump()), HasSubstr("integrity is msb-sparse"));
  arrived.reset();
  Refusal(fixture_, fixture_.document.dump());
  listed = nullptr;
  ExpectAccepted();
  arrived = {"sha256", digest};
  Refusal(fixture_, fixture_.document.dump());
}

TEST_P(InventoryCheckTest, APayloadOfSeveralSnapshotsIsOfAnyOfThem) {
  AddSnapshot(layered() ? "snap_f" : "sha256:" + std::string(64, 'f'));
  if (!layered()) fixture_.document["with_parents"] = true;
  ExpectAccepted();
  json& owner = Entry(MemberKind::kPayload)["owner_snapshot"];
  owner = fixture_.arrived.snapshots.back().id;
  EXPECT_THAT(Refusal(fixture_, fixture_.document.dump()), HasSubstr("owner_snapshot"));
  ArrivedOne(MemberKind::kPayload).owner.reset();
  ExpectAccepted();
  owner = "snap_other";
  EXPECT_THAT(Refusal(fixture_, fixture_.document.dump()), HasSubstr("owner_snapshot"));
  owner = nullptr;
  Refusal(fixture_, fixture_.document.dump());
}

TEST_P(InventoryCheckTest, SnapshotsAreSortedById) {
  AddSnapshot(layered() ? "snap_f" : "sha256:" + std::string(64, 'f'));
  if (!layered()) {
    EXPECT_THAT(Refusal(fixture_, fixture_.document.dump()), HasSubstr("with_parents"));
    fixture_.document["with_parents"] = true;
  }
  std::swap(fixture_.arrived.snapshots[0], fixture_.arrived.snapshots[1]);
  ExpectAccepted();
  json& list = fixture_.document[layered() ? "members" : "snapshots"];
  std::swap(list[0], list[1]);
  EXPECT_THAT(Refusal(fixture_, fixture_.document.dump()), HasSubstr("snapshot_id"));
}

TEST_P(InventoryCheckTest, RefusesMalformedDocuments) {
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("null"), fixture_.text + "x",
        fixture_.text.substr(1), fixture_.text + std::string(1, '\0'),
        "\xef\xbb\xbf" + fixture_.text, std::string("{\"head\":\"\xff\"}")}) {
    Refusal(fixture_, text);
  }
}

INSTANTIATE_TEST_SUITE_P(Releases, InventoryCheckTest, testing::Values("0.6.18", "0.7.2"),
                         [](const auto& test) {
                           return test.index == 0 ? "Inventory" : "Layered";
                         });

TEST(InventoryCheckTest, WithImageIsWhetherAnImageArrived) {
  Fixture alone("0.6.18", kAlone);
  alone.document["with_image"] = true;
  EXPECT_THAT(Refusal(alone, alone.document.dump()), HasSubstr("with_image"));
}

TEST(InventoryCheckTest, TakesTheSparseMapWithTheMostRanges) {
  Fixture fixture("0.7.2", kAlone);
  Member& disk = fixture.arrived.members.back();
  ASSERT_EQ(disk.kind, MemberKind::kPayload);
  disk.ranges.clear();
  json& ranges = fixture.document["entries"][0]["sparse_ranges"];
  ranges = json::array();
  for (std::uint64_t i = 0; i < 1 << 18; ++i) {
    const std::uint64_t offset = (std::uint64_t{1} << 40) + (i << 20);
    disk.ranges.push_back({offset, 512});
    ranges.push_back({offset, 512U});
  }
  const std::string text = fixture.document.dump();
  EXPECT_LT(text.size(), kMaxInventoryBytes);
  EXPECT_NO_THROW(CheckInventory(text, fixture.arrived));
}

TEST(WriteInventoryTest, WritesTheInventoryOfTheRelease) {
  for (const std::string& name : {kAlone, kWithImage}) {
    Fixture fixture("0.6.18", name);
    EXPECT_EQ(WriteInventory(fixture.arrived), fixture.text);
    std::reverse(fixture.arrived.members.begin(), fixture.arrived.members.end());
    EXPECT_EQ(WriteInventory(fixture.arrived), fixture.text);
  }
}

TEST(WriteInventoryTest, WritesInventoriesThatPassTheCheck) {
  const Fixture fixture("0.6.18");
  Inventory inventory = fixture.arrived;
  inventory.with_parents = true;
  inventory.suggested_name = "quote\" back\\slash caf\xc3\xa9";
  const std::string other = "sha256:" + std::string(64, '0');
  inventory.snapshots.push_back(
      {other, "snapshots/" + std::string(64, '0') + "/snapshot.json", other});
  EXPECT_NO_THROW(CheckInventory(WriteInventory(inventory), inventory));
  const json written = json::parse(WriteInventory(inventory));
  EXPECT_EQ(written["snapshots"][0]["snapshot_id"], other);
  EXPECT_EQ(written["suggested_name"], *inventory.suggested_name);
  inventory.suggested_name.reset();
  for (Member& member : inventory.members) {
    if (member.kind == MemberKind::kPayload) member.integrity.reset();
  }
  EXPECT_NO_THROW(CheckInventory(WriteInventory(inventory), inventory));
  EXPECT_TRUE(json::parse(WriteInventory(inventory))["suggested_name"].is_null());
}

}  // namespace
}  // namespace msb::archive
